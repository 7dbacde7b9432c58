"""Declared sweeps: a TOML file whose lists are combined, one sweep each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from mechspex.cli.choices import Ablation, Dtype, Metric, Precision
from mechspex.core.checks import told
from mechspex.core.errors import Refused

# {entry of the file: (its option, what it holds)}; lists are combined.
LISTS: dict[str, tuple[str, type]] = {
    "models": ("model", str), "tasks": ("task", str), "units": ("units", str),
    "ablations": ("ablation", str), "seeds": ("seed", int), "order": ("order", int),
    "densities": ("density", float),
}  # fmt: skip
SINGLE: dict[str, tuple[str, type]] = {
    "prompts": ("prompts", int), "dtype": ("dtype", str), "precision": ("precision", str),
    "device": ("device", str), "layers": ("layers", str), "metric": ("metric", str),
    "contexts": ("contexts", int),
}  # fmt: skip
_DEFAULTS: dict[str, list[Any]] = {
    "models": ["smollm2-135m"], "units": ["heads"], "ablations": ["mean"], "seeds": [0]
}  # fmt: skip
_CHOICES: dict[str, tuple[str, ...]] = {
    "ablations": get_args(Ablation), "dtype": get_args(Dtype), "precision": get_args(Precision),
    "metric": get_args(Metric),
}  # fmt: skip
_MEANT = {"orders": "order", "density": "densities", "keep": "densities"}
# What the masks of an explanation have.
_DECODED = ("masks", "n_masks", "budget")
_WANTED = {str: "text in quotes", int: "whole numbers", float: "numbers"}


@dataclass(frozen=True)
class Shard:
    """One of so many parts of the sweeps, from 1."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """The shard that ``3/16`` names.

        Raises:
            Refused: it is not written so.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise Refused(f"--shard {text!r}: write 3/16, from 1/16 to 16/16")
        return cls(int(number), int(of))

    def takes(self, weights: list[int]) -> list[bool]:
        """Which of some pieces of work belong to the shard: neighbours, with nearly equal sums.

        Args:
            weights: how much work each is.
        """
        whole, before, taken = sum(weights), 0, []
        for weight in weights:
            middle = before + weight / 2
            taken.append(int(middle * self.of / max(whole, 1)) + 1 == self.number)
            before += weight
        return taken


def read_sweep_file(file: Path) -> dict[str, Any]:
    """The entries of a file of sweeps, checked; lists as lists.

    Raises:
        Refused: no such file, or one that breaks the format; with the line.
    """
    from mechspex.tasks.toml_lines import line_of

    try:
        text = file.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise Refused(f"{file} cannot be read ({error.strerror}); name a TOML file") from None
    except (ValueError, RecursionError) as error:  # 5,000 digits and 1,000 brackets among them
        raise Refused(f"{file} is no TOML file: {error}") from None
    read = {}
    for written, given in table.items():
        key = _MEANT.get(written, written)
        known = LISTS.get(key) or SINGLE.get(key)
        place = f"{file}, line {line_of(text, [written])}"
        if written in _DECODED:
            raise Refused(
                f"{place}: {written!r} is of masks that are decoded, and a sweep measures every "
                "unit, or every pair, exactly, at a density in so many 'contexts'; masks are "
                "decoded by: mechspex explain TASK --keep 0.9 --masks 500"
            )
        if known is None:
            raise Refused(f"{place}: unknown {key!r}; there are {', '.join([*LISTS, *SINGLE])}")
        if key in read:
            raise Refused(f"{place}: {written!r} is {key!r} once more; write one list")
        entries = given if isinstance(given, list) and key in LISTS else [given]
        kind = known[1]
        kinds = (float, int) if kind is float else (kind,)
        if not entries or not all(type(entry) in kinds for entry in entries):
            raise Refused(f"{place}: {key!r} is {told(given)}; it takes {_WANTED[kind]}")
        read[key] = entries if key in LISTS else given
    return read


def cells_of(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of each sweep, those of one model together.

    Args:
        table: what `read_sweep_file` returned, with what flags put in its place.

    Raises:
        Refused: no tasks, or an unknown word.
    """
    if not table.get("tasks"):
        raise Refused("there are no tasks; add a line such as: tasks = ['ioi']")
    for key, choices in _CHOICES.items():
        given = table.get(key, [])
        for entry in given if isinstance(given, list) else [given]:
            if entry not in choices:
                raise Refused(f"{key}: {entry!r} is unknown; choose {', '.join(choices)}")
    for density in table.get("densities") or ():
        if not 0 < density <= 1:
            raise Refused(
                f"densities: {told(density)} is none; give probabilities above 0, 1 keeps all units"
            )
    if table.get("contexts") and not any(d < 1 for d in table.get("densities") or ()):
        raise Refused("contexts are of densities below 1; add a line such as: densities = [0.5]")
    # Orders and densities alone have no default here: a sweep of no order is one of singles,
    # and one of no density keeps all others.
    keys = [key for key in LISTS if table.get(key) or key in _DEFAULTS]
    lists = [list(dict.fromkeys(table.get(key) or _DEFAULTS[key])) for key in keys]
    single = {SINGLE[key][0]: table[key] for key in SINGLE if table.get(key) is not None}
    names = [LISTS[key][0] for key in keys]
    return [single | dict(zip(names, combined, strict=True)) for combined in product(*lists)]
