"""Tokenizers: what is asked of one, and the light one that needs neither a model nor torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

# Of these classes of transformers the file tokenizer.json is all there is; others change it.
_PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")


@runtime_checkable
class Tokenizer(Protocol):
    """What drawing and reading prompts asks of a tokenizer; those of transformers have it."""

    @property
    def bos_token_id(self) -> int | None: ...

    @property
    def unk_token_id(self) -> int | None: ...

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        """The token ids of a text, as `input_ids` of what is returned."""
        ...

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The tokens of such ids."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A text in token ids."""

    input_ids: list[int]


class FolderTokenizer:
    """The tokenizer of a model's folder, in milliseconds.

    Like that of a loaded model it puts the BOS token first, where there is one.

    Args:
        folder: holds ``tokenizer.json`` and ``tokenizer_config.json``.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Rust

        self._rust = Rust.from_file(str(folder / "tokenizer.json"))
        self._config = json.loads((folder / "tokenizer_config.json").read_text())
        self._bos, self._unk = self._special("bos_token"), self._special("unk_token")

    @staticmethod
    def reads(folder: Path) -> bool:
        """Whether the folder's tokenizer is wholly told by its ``tokenizer.json``."""
        config = folder / "tokenizer_config.json"
        if not (config.is_file() and (folder / "tokenizer.json").is_file()):
            return False
        return json.loads(config.read_text()).get("tokenizer_class") in _PLAIN

    @property
    def bos_token_id(self) -> int | None:
        return self._bos

    @property
    def unk_token_id(self) -> int | None:
        return self._unk

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Encoded:
        ids = self._rust.encode(text, add_special_tokens=False).ids
        if add_special_tokens and self._bos is not None:
            ids = [self._bos, *ids]
        return Encoded(ids)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [str(self._rust.id_to_token(number)) for number in ids]

    def _special(self, name: str) -> int | None:
        token = self._config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        return None if text is None else self._rust.token_to_id(text)
