"""Text of prompts and labels, made safe to show: what cannot be seen is written out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Controls but tab and newline, marks of writing direction, invisible characters, lone surrogates.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with every character that cannot be seen, or that turns others round, as its code.

    >>> visible("user\\u202egnp.exe")
    'user⟨U+202E⟩gnp.exe'

    Args:
        text: any text, lone surrogates among it.
    """
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def all_visible(value: Any) -> Any:
    """The same of all text in lists and dictionaries, keys too."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): all_visible(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [all_visible(part) for part in value]
    return value
