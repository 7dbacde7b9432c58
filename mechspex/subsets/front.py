"""The best subset of a size, and the front of them over sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool

from mechspex.core.errors import Refused
from mechspex.core.json_values import plain, read_number, read_term, read_whole
from mechspex.core.result import Result

if TYPE_CHECKING:
    import matplotlib.figure

SubsetObjective = Literal["keep", "remove"]
SearchMethod = Literal["milp", "local search"]

# Sizes that a printed front shows.
_SHOWN = 20


@dataclass(frozen=True, eq=False, repr=False)
class Subset(Result):
    """A set of units, what a function predicts for it, and how much better another set could be.

    Attributes:
        columns: the units by column, ascending.
        n_units: the width of a mask.
        size: how many units the set has.
        objective: ``keep``: the units alone are kept, and f is to be large. ``remove``: they alone
            are ablated, and f is to be small.
        value: f of that mask, in the units of the value.
        bound: no set of this size has a value above it (``remove``: below it).
        proven: whether no set of this size is better by more than 10⁻⁶ Σ|c| of the function.
        method: ``milp`` if an integer program proved or found the set, else ``local search``.
        seconds: the time spent on this size.
    """

    schema: ClassVar[str] = "mechspex.subset/1"
    within: ClassVar[bool] = True
    called: ClassVar[str] = "subset"

    columns: tuple[int, ...]
    n_units: int
    size: int
    objective: SubsetObjective
    value: float
    bound: float
    proven: bool
    method: SearchMethod
    seconds: float

    @property
    def gap(self) -> float:
        """|bound − value|: how much better a set of this size could at most be."""
        return abs(self.bound - self.value)

    @property
    def mask(self) -> Bool[np.ndarray, " unit"]:
        """The mask that was scored; True = kept."""
        kept = np.full(self.n_units, self.objective == "remove")
        kept[list(self.columns)] = self.objective == "keep"
        return kept

    @property
    def in_short(self) -> str:
        """What is kept or removed, f of that, and whether it is proven best."""
        proof = "proven" if self.proven else f"not proven: bound {self.bound:.4g}"
        return (
            f"{self.objective} {self.size} of {self.n_units} units: f = {self.value:.4g}, {proof} "
            f"({self.method}, {self.seconds:.1f} s)"
        )

    def __str__(self) -> str:
        return self.in_short

    def to_pandas(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """One row: size, value, bound, gap, proven, method, seconds, units.

        Args:
            names: the name of each unit; its column number if not given.
        """
        return Front((self,), self.seconds).to_pandas(names)

    def to_dict(self) -> dict[str, Any]:
        """The subset as plain numbers and lists."""
        return plain({**vars(self), "columns": list(self.columns)})

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Subset:
        objective, method = record["objective"], record["method"]
        if objective not in get_args(SubsetObjective) or method not in get_args(SearchMethod):
            raise ValueError(f"{objective!r} by {method!r}")
        return cls(
            columns=read_term(record["columns"]),
            n_units=read_whole(record["n_units"]),
            size=read_whole(record["size"]),
            objective=objective,
            value=read_number(record["value"]),
            bound=read_number(record["bound"]),
            proven=bool(record["proven"]),
            method=method,
            seconds=read_number(record["seconds"]),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Front(Result):
    """The best subset of each size.

    Attributes:
        subsets: one subset a size, the smallest first.
        seconds: the time spent on all sizes.
    """

    schema: ClassVar[str] = "mechspex.front/1"
    called: ClassVar[str] = "front"

    subsets: tuple[Subset, ...]
    seconds: float

    def __len__(self) -> int:
        return len(self.subsets)

    def __iter__(self) -> Iterator[Subset]:
        return iter(self.subsets)

    def __getitem__(self, size: int) -> Subset:
        """The subset of `size` units.

        Raises:
            Refused: a size that the front does not hold.
        """
        for subset in self.subsets:
            if subset.size == size:
                return subset
        sizes = [subset.size for subset in self.subsets]
        raise Refused(f"size = {size}: this front holds {len(sizes)} sizes, {_range(sizes)}")

    def to_pandas(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a size: size, value, bound, gap, proven, method, seconds, units.

        Args:
            names: the name of each unit; its column number if not given.
        """
        labels = None if names is None else list(names)
        return pd.DataFrame(
            {
                "size": [s.size for s in self.subsets],
                "value": [s.value for s in self.subsets],
                "bound": [s.bound for s in self.subsets],
                "gap": [s.gap for s in self.subsets],
                "proven": [s.proven for s in self.subsets],
                "method": [s.method for s in self.subsets],
                "seconds": [s.seconds for s in self.subsets],
                "units": [
                    ", ".join(str(i) if labels is None else labels[i] for i in s.columns)
                    for s in self.subsets
                ],
            }
        )

    def plot(self) -> "matplotlib.figure.Figure":
        """The value of the best subset of each size, and the bound on all others."""
        from mechspex.figures.sizes import subset_front

        return subset_front(self.subsets)

    @property
    def summary(self) -> str:
        """One line: how many sizes, how many proven, the largest gap, seconds."""
        proven = sum(subset.proven for subset in self.subsets)
        gap = max(subset.gap for subset in self.subsets)
        return (
            f"{self.subsets[0].objective} {_range([s.size for s in self.subsets])} of "
            f"{self.subsets[0].n_units} units: {proven} of {len(self)} sizes proven, largest gap "
            f"{gap:.3g}, {self.seconds:.0f} s"
        )

    def __str__(self) -> str:
        return f"{self.summary}\n{self._spread().to_string(index=False)}"

    @property
    def in_short(self) -> str:
        """`summary`, of a front that holds any sizes."""
        return self.summary if self.subsets else "no sizes"

    def _tables(self) -> list[pd.DataFrame]:
        return [self._spread()] if self.subsets else []

    def to_dict(self) -> dict[str, Any]:
        """The subsets as plain numbers and lists."""
        return {
            "schema": self.schema,
            "subsets": [subset.to_dict() for subset in self.subsets],
            "seconds": self.seconds,
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Front:
        subsets = tuple(Subset.from_dict(subset) for subset in record["subsets"])
        return cls(subsets, read_number(record["seconds"]))

    def _spread(self) -> pd.DataFrame:
        """A table of at most twenty sizes, evenly spread."""
        rows = np.unique(np.linspace(0, len(self) - 1, _SHOWN).round().astype(int))
        return self.to_pandas().drop(columns="units").iloc[rows]


def _range(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} … {sizes[-1]}"
