"""Several runs of one question in one: every value of all of them, each mask once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mechspex.core.errors import RunError
from mechspex.runs.check_store import stores_below
from mechspex.runs.mask_keys import mask_keys, masks_of
from mechspex.runs.row_log import TABLES, Row
from mechspex.runs.store import ValueStore
from mechspex.runs.store_file import VALUES
from mechspex.runs.stored import Stored

# Rows of a commit.
_ROWS = 4096


@dataclass(frozen=True)
class Merged:
    """What a merge did to one store.

    Attributes:
        file: the store.
        n_values: how many masks it holds now.
        n_new: how many values and gradients came new.
    """

    file: Path
    n_values: int
    n_new: int


def merge(runs: Sequence[Path], into: Path) -> list[Merged]:
    """Take the values of several runs into one; taken twice they change nothing.

    A mask that several runs measured keeps the value that came first. Answers are not merged: the
    command that made them gives one from all values.

    Args:
        runs: the folders of runs of one question; they are not changed.
        into: the folder of the run that takes them, new or one of the same question.

    Raises:
        RunError: values of another configuration, with the difference.
        StoreError: a store is damaged.
    """
    parts: dict[Path, list[Stored]] = {}
    for run in runs:
        for folder in stores_below(run):
            parts.setdefault(folder.relative_to(run), []).append(Stored.open(folder))
    for part, stores in parts.items():
        there = [Stored.open(into / part)] if (into / part / VALUES).exists() else []
        first, *others = [*there, *stores]
        for other in others:
            _check_same(first, other)
    return [_merge(stores, into / part) for part, stores in parts.items()]


def _check_same(first: Stored, other: Stored) -> None:
    one, two = first.configuration, other.configuration
    differing = [
        f"{key}: {one.get(key)} in {first.folder}, {two.get(key)} in {other.folder}"
        for key in sorted(one | two)
        if one.get(key) != two.get(key)
    ]
    if differing:
        raise RunError(
            f"these are runs of different questions ({'; '.join(differing)}); merge those of one"
        )


def _merge(stores: Sequence[Stored], into: Path) -> Merged:
    n_new = 0
    columns = next((store.columns for store in stores if store.columns is not None), None)
    target = ValueStore(into, stores[0].configuration, schema=stores[0].schema, columns=columns)
    try:
        for store in stores:
            if store.columns is not None:
                target.describe(*store.columns)
            for table in TABLES:
                rows = store.rows(table)
                if table == "value" and store.schema != target.schema:
                    rows = _rekeyed(rows, store, target.schema)
                while block := list(islice(rows, _ROWS)):
                    n_new += target.add(table, block)
        return Merged(into / VALUES, len(target), n_new)
    finally:
        target.close()


def _rekeyed(rows: Iterator[Row], store: Stored, schema: int) -> Iterator[Row]:
    """The same rows with the keys of another schema."""
    n_units = len(store.known_columns.units)
    while block := list(islice(rows, _ROWS)):
        masks = masks_of([row.key for row in block], n_units)
        for key, row in zip(mask_keys(masks, schema), block, strict=True):
            yield Row.of(key, row.outputs)
