"""Training examples as units: single ones, or groups of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool

from mechspex.core.checks import Whole, number_in, told
from mechspex.core.doors import door
from mechspex.core.errors import Refused, ShapeError
from mechspex.core.units import Unit, UnitSet

_MOST = 10**7
_GROUPS = "classes, duplicates, a label per example, or {name: rows}"


@dataclass(frozen=True)
class Examples(UnitSet):
    """Units of training examples, and the rows of the data set that each of them stands for.

    Rows that belong to no unit are trained on whatever the mask.

    Attributes:
        units: the units, in the order of the mask's columns.
        rows: the rows of each unit, in rising order.
        n_rows: how many rows the data set has.
    """

    rows: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    n_rows: int = field(default=0, repr=False)

    def kept_rows(self, masks: Bool[np.ndarray, "mask unit"]) -> Bool[np.ndarray, "mask row"]:
        """The rows that are trained on under each mask."""
        kept = np.ones((len(masks), self.n_rows), dtype=bool)
        column = np.repeat(np.arange(len(self)), [len(rows) for rows in self.rows])
        kept[:, [row for rows in self.rows for row in rows]] = masks[:, column]
        return kept

    def __repr__(self) -> str:
        return super().__repr__().replace("UnitSet", "Examples", 1)


def inputs_and_labels(name: str, given: object) -> tuple[Any, Any]:
    """Reads a data set: a pair of inputs and labels, or what has ``data`` and ``target``, as the
    data sets of scikit-learn, or ``inputs`` and ``labels``.

    Raises:
        Refused: something else, or inputs and labels of different length.
    """
    for first, second in (("inputs", "labels"), ("data", "target")):
        if hasattr(given, first) and hasattr(given, second):
            given = (getattr(given, first), getattr(given, second))
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise Refused(f"{name} = {told(given)}: give (inputs, labels), a row an example")
    inputs, labels = given
    if not hasattr(inputs, "__len__") or not hasattr(labels, "__len__"):
        raise Refused(f"{name} = {told(given)}: give (inputs, labels), a row an example")
    if len(inputs) != len(labels):
        raise ShapeError(
            f"{name} has {len(inputs)} inputs and {len(labels)} labels; give a label for each input"
        )
    return inputs, labels


def _as_dataset(name: str, given: object) -> object:
    """Reads a data set, or how many examples it has."""
    if number_in(given) is not None:
        return Whole(1, _MOST, "a data set, or how many examples it has")(name, given)
    inputs, labels = inputs_and_labels(name, given)
    if not len(inputs):
        raise Refused(f"{name} is empty; give at least one example")
    return inputs, labels


@door(dataset=_as_dataset)
def examples(
    dataset: object,
    groups: str | Sequence[object] | Mapping[str, Iterable[int]] | None = None,
) -> Examples:
    """Units of a training set: every example by itself, or groups of them.

    >>> import mechspex as mx
    >>> mx.examples(4)
    Examples(4: #0, #1, #2, #3)
    >>> mx.examples(4, groups=["web", "book", "web", "book"]).rows
    ((0, 2), (1, 3))

    Args:
        dataset: ``(inputs, labels)``, a data set of scikit-learn, or how many examples there are.
        groups: one unit for each group in place of each example: ``classes`` (by label),
            ``duplicates`` (equal input and label), a label per example (sources, clusters), or
            ``{name: rows}``; rows that are not listed are always trained on.

    Raises:
        Refused: no examples, groups that overlap, and a group that holds every example, without
            which nothing would be left to train on.
    """
    n_rows = dataset if isinstance(dataset, int) else len(dataset[0])  # type: ignore[index]
    if groups is None:
        named = {f"#{row}": [row] for row in range(n_rows)}
    elif isinstance(groups, Mapping):
        named = {str(name): _rows(str(name), rows, n_rows) for name, rows in groups.items()}
    else:
        named = _by_label(_labels(dataset, groups, n_rows))
    _check(named, n_rows)
    units = tuple(Unit("example", 0, place, None, name) for place, name in enumerate(named))
    return Examples(units, tuple(tuple(sorted(rows)) for rows in named.values()), n_rows)


def _labels(dataset: object, groups: str | Sequence[object], n_rows: int) -> list[str]:
    """A label per example."""
    if isinstance(groups, str):
        if groups not in ("classes", "duplicates"):
            raise Refused(f"groups = {groups!r}: give {_GROUPS}")
        if isinstance(dataset, int):
            raise Refused(f"groups = {groups!r} of {dataset} examples: give the data set as well")
        inputs, labels = map(_on_the_cpu, dataset)  # type: ignore[call-overload]
        if groups == "classes":
            return [f"class {label}" for label in np.asarray(labels).tolist()]
        first: dict[object, int] = {}
        keys = zip(_keys(inputs), _keys(labels), strict=True)
        return [f"#{first.setdefault(key, row)}" for row, key in enumerate(keys)]
    if not hasattr(groups, "__len__") or len(groups) != n_rows:
        raise Refused(f"groups = {told(groups)} of {n_rows} examples: give {_GROUPS}")
    return [str(label) for label in groups]


def _on_the_cpu(given: Any) -> Any:
    """A tensor as an array, wherever it lies; anything else as it is."""
    return given.detach().cpu().numpy() if hasattr(given, "detach") else given


def _keys(rows: Any) -> list[object]:
    """Of each row what it has in common with those that equal it."""
    try:
        array = np.asarray(rows)
    except ValueError:  # rows of several lengths
        return [_key(row) for row in rows]
    if array.dtype == object:  # texts of a pandas frame among them
        return [_key(row) for row in array]
    return [_bytes(row) for row in array]


def _key(value: Any) -> object:
    value = _on_the_cpu(value)
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    array = np.asarray(value)
    if array.dtype != object:
        return array.shape, _bytes(array)
    return tuple(map(_key, array)) if array.ndim else str(value)


def _bytes(array: Any) -> bytes:
    # −0 equals 0.
    return (array + 0 if array.dtype.kind == "f" else array).tobytes()


def _by_label(labels: list[str]) -> dict[str, list[int]]:
    named: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        named.setdefault(label, []).append(row)
    return named


def _rows(name: str, rows: Iterable[int], n_rows: int) -> list[int]:
    found = [Whole(0, wanted="rows of the data set")(f"groups[{name!r}]", row) for row in rows]
    beyond = [row for row in found if row >= n_rows]
    if beyond:
        raise Refused(f"group {name!r} has row {beyond[0]}, and there are {n_rows} examples")
    return found


def _check(named: Mapping[str, Sequence[int]], n_rows: int) -> None:
    group_of: dict[int, str] = {}
    if not named:
        raise Refused("there are no groups; give at least one")
    for name, rows in named.items():
        if not rows:
            raise Refused(f"group {name!r} is empty; give it rows, or leave it out")
        if len(set(rows)) == n_rows and n_rows > 1:
            raise Refused(
                f"group {name!r} holds all {n_rows} examples: without it nothing is left to train "
                "on; give smaller groups"
            )
        for row in rows:
            if row in group_of:
                raise Refused(
                    f"row {row} is in the groups {group_of[row]!r} and {name!r}; give it one"
                )
            group_of[row] = name
