"""Where values come from: everything they depend on but the mask, as fields and as text.

The text is what run folders and answers keep and call their configuration. It is written and taken
apart here alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mechspex.core.counted import counted

# What means over the prompts themselves are told to be taken from, where lengths differ.
PIECE_BY_PIECE = "prompts of all lengths, piece by piece"

_DIGEST = "[0-9a-f]{16}"
# {key of a configuration: what its text is made of}.
_PATTERNS = {
    key: re.compile(pattern, re.DOTALL)
    for key, pattern in {
        "clean and ablated": r"(?P<clean>[^ ,]+), (?P<ablated>[^ ,]+)",
        "model": r"(?P<model>.*?)(, first (?P<n_blocks>\d+) blocks)?"
        rf"( (?P<weights_digest>{_DIGEST}))?",
        "dtype": r"(?P<dtype>.*?)(, measured in (?P<precision>.+))?",
        "task": r"(?P<task>.*?)"
        rf"(, (?P<n_prompts>\d+) prompts( (?P<prompts_digest>{_DIGEST}))?)?",
        "metric": rf"(?P<metric>.*?)( (?P<metric_digest>{_DIGEST}( \(.*\))?))?",
        "units": rf"(?P<units>.*?)( (?P<units_digest>{_DIGEST}))?",
        "ablation": rf"(?P<ablation>.*?)( (?P<ablation_digest>{_DIGEST}))?"
        r"(, seed (?P<seed>-?\d+))?(?P<rescaled>, rescaled)?",
    }.items()
}
# What is no text.
_READERS: dict[str, Callable[[str], Any]] = {
    "clean": float, "ablated": float, "n_blocks": int, "n_prompts": int, "seed": int,
    "rescaled": bool,
}  # fmt: skip
# What a reader is told of them, in this order.
_TOLD = ["task", "model", "units", "ablation", "metric"]


@dataclass(frozen=True)
class Provenance:
    """Everything that values depend on but the mask; None where it is not known.

    Digests are the first 16 hexadecimal digits of a SHA-256.

    Attributes:
        clean, ablated: the values with all units kept and with all ablated, mean over prompts.
        model: the model's name.
        n_blocks: how many of its first blocks are run, where not all are.
        weights_digest: the digest of its weights.
        dtype: the number format of its weights.
        precision: what it is measured in, where that is another.
        task: the task's name.
        n_prompts: how many prompts there are.
        prompts_digest: the digest of their tokens, answers and distractors.
        metric: the name of what is made of the logits.
        metric_digest: the digest of its code and of what that reads (see `Identity`), where it is
            a function of the user's.
        units: a few words for the units, or all their names.
        units_digest: the digest of their names.
        ablation: the name of what ablation puts in.
        ablation_digest: the digest of the activations or prompts that this is taken from.
        seed: the seed it is drawn with.
        rescaled: whether what is kept is scaled up for what is ablated.
        others: {key: text} of everything else that a configuration says.
    """

    clean: float | None = None
    ablated: float | None = None
    model: str | None = None
    n_blocks: int | None = None
    weights_digest: str | None = None
    dtype: str | None = None
    precision: str | None = None
    task: str | None = None
    n_prompts: int | None = None
    prompts_digest: str | None = None
    metric: str | None = None
    metric_digest: str | None = None
    units: str | None = None
    units_digest: str | None = None
    ablation: str | None = None
    ablation_digest: str | None = None
    seed: int | None = None
    rescaled: bool = False
    others: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, configuration: Mapping[str, str]) -> Provenance:
        """The fields of a configuration, whoever wrote it.

        Keys that are not known, and text that is not made of fields, stay as they are in `others`,
        so that `to_configuration` gives the same text again.
        """
        fields: dict[str, Any] = {}
        others = {}
        for key, text in configuration.items():
            read = _fields_of(key, text)
            # Text such as "007 prompts" would not be written so again.
            if read and cls(**read).to_configuration() == {key: text}:
                fields |= read
            else:
                others[key] = text
        return cls(**fields, others=others)

    def to_configuration(self) -> dict[str, str]:
        """The same as text, as run folders and answers keep it."""
        ends = None if self.clean is None else f"{self.clean:.4g}, {self.ablated:.4g}"
        blocks = None if self.n_blocks is None else f", first {self.n_blocks} blocks"
        prompts = None if self.n_prompts is None else f", {self.n_prompts} prompts"
        seed = None if self.seed is None else f", seed {self.seed}"
        precision = None if self.precision is None else f", measured in {self.precision}"
        rescaled = ", rescaled" if self.rescaled else None
        written = {
            "clean and ablated": ends,
            "model": _joined(self.model, blocks, _spaced(self.weights_digest)),
            "dtype": _joined(self.dtype, precision),
            "task": _joined(self.task, prompts, _spaced(self.prompts_digest)),
            "metric": _joined(self.metric, _spaced(self.metric_digest)),
            "units": _joined(self.units, _spaced(self.units_digest)),
            "ablation": _joined(self.ablation, _spaced(self.ablation_digest), seed, rescaled),
        }
        return {k: text for k, text in written.items() if text is not None} | dict(self.others)

    @property
    def metric_name(self) -> str | None:
        """The metric as a reader calls it: a function without the places it is defined in."""
        return None if self.metric is None else self.metric.rsplit(".", 1)[-1]

    def in_words(self) -> list[str]:
        """Task, model, units, ablation and metric, and the precision where that is not the model's
        own; without digests, which tell two apart and no reader."""
        digests = [name for name in self.__dataclass_fields__ if name.endswith("_digest")]
        bare = replace(self, metric=self.metric_name, **dict.fromkeys(digests))
        text = bare.to_configuration()
        if self.task is not None and self.n_prompts is not None:
            text["task"] = f"{self.task}, {counted(self.n_prompts, 'prompt')}"
        keys = _TOLD if self.precision is None else [*_TOLD, "dtype"]
        return [text[key] for key in keys if key in text]


def _fields_of(key: str, text: str) -> dict[str, Any]:
    """{field: value} that the text of one key holds; none if it is not made of fields."""
    match = _PATTERNS[key].fullmatch(text) if key in _PATTERNS else None
    found = {} if match is None else match.groupdict()
    try:
        return {
            name: _READERS.get(name, str)(value)
            for name, value in found.items()
            if value is not None
        }
    except ValueError:
        return {}


def _joined(name: str | None, *parts: str | None) -> str | None:
    """The name and what is known beside it; None without a name."""
    return None if name is None else name + "".join(part for part in parts if part is not None)


def _spaced(digest: str | None) -> str | None:
    return None if digest is None else f" {digest}"


def digest_of_parts(parts: Iterable[str | bytes]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of some texts and bytes.

    Args:
        parts: the texts and bytes.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"|")
    return digest.hexdigest()[:16]
