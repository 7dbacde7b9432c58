"""Two circuits side by side: a found one held against a published one, or any other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool

from mechspex.circuits.circuit import Circuit
from mechspex.core.checks import Only
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.json_values import plain, read_number, read_text
from mechspex.core.result import Result


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """A circuit held against another, taken as the truth.

    Attributes:
        both, only_found, only_truth: the names of units in both circuits, in the found one alone,
            and in the other one alone.
        precision: |both| / |found|.
        recall: |both| / |truth|.
        f1: the harmonic mean of precision and recall.
        auc: the chance that a member of the truth ranks above another unit (area under the receiver
            operating curve). Without a ranking, members of the found circuit rank above all others.
        expected: the precision to expect of a random circuit of the same size.
    """

    schema: ClassVar[str] = "mechspex.comparison/1"
    called: ClassVar[str] = "comparison"

    both: tuple[str, ...]
    only_found: tuple[str, ...]
    only_truth: tuple[str, ...]
    precision: float
    recall: float
    f1: float
    auc: float
    expected: float

    def to_pandas(self) -> pd.DataFrame:
        """One row a unit of either circuit: its name, and which of both have it."""
        groups = {"both": self.both, "found": self.only_found, "truth": self.only_truth}
        rows = [(unit, where) for where, names in groups.items() for unit in names]
        return pd.DataFrame(rows, columns=["unit", "in"])

    def to_dict(self) -> dict[str, Any]:
        """Names and scores, with a schema name."""
        return {"schema": self.schema} | plain(asdict(self))

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Comparison:
        both, only_found, only_truth = (
            tuple(read_text(unit) for unit in record[name])
            for name in ("both", "only_found", "only_truth")
        )
        scores = ("precision", "recall", "f1", "auc", "expected")
        numbers = {name: read_number(record[name]) for name in scores}
        return cls(both, only_found, only_truth, **numbers)

    @property
    def in_short(self) -> str:
        """Precision, recall, their harmonic mean, and the area under the curve."""
        return (
            f"precision {self.precision:.2f} (by chance {self.expected:.2f})   recall "
            f"{self.recall:.2f}   F1 {self.f1:.2f}   area under the curve {self.auc:.2f}"
        )

    def __str__(self) -> str:
        return "\n".join(
            [
                self.in_short,
                f"in both: {', '.join(self.both) or '–'}",
                f"only found: {', '.join(self.only_found) or '–'}",
                f"only in the other: {', '.join(self.only_truth) or '–'}",
            ]
        )


@door(
    found=Only((Circuit,), "a Circuit, such as Circuit.load('NAME')"),
    truth=Only((Circuit,), "a Circuit, such as Circuit.load('NAME')"),
)
def compare_circuits(
    found: Circuit, truth: Circuit, *, ranking: Iterable[int | str] | None = None
) -> Comparison:
    """Hold a circuit against another one over the same units, such as a published one.

    Args:
        found: the circuit that is judged.
        truth: the circuit that it is judged by.
        ranking: all units, best first, from which `found` was cut; it serves the area under the
            curve.

    Raises:
        Refused: circuits over different units, an empty truth.
    """
    if found.units != truth.units:
        raise Refused(
            f"the circuits lie in {found.units} and {truth.units}; compare circuits of one model"
        )
    if not 0 < len(truth) < len(truth.units):
        raise Refused(f"the other circuit has {len(truth)} of {len(truth.units)} units; it needs "
                      "some and not all")  # fmt: skip
    names = found.units.names
    mine, theirs = set(found.members), set(truth.members)
    both = mine & theirs
    precision = len(both) / len(mine) if mine else 0.0
    recall = len(both) / len(theirs)
    score = found.mask.astype(float)
    if ranking is not None:
        order = [found.units.column_of[u] if isinstance(u, str) else int(u) for u in ranking]
        if sorted(order) != list(range(len(names))):
            raise Refused(f"the ranking has {len(order)} units; give all {len(names)}, each once")
        score[order] = -np.arange(len(names))
    return Comparison(
        both=tuple(names[c] for c in sorted(both)),
        only_found=tuple(names[c] for c in sorted(mine - theirs)),
        only_truth=tuple(names[c] for c in sorted(theirs - mine)),
        precision=precision,
        recall=recall,
        f1=2 * len(both) / (len(mine) + len(theirs)),
        auc=_area(score, truth.mask),
        expected=len(theirs) / len(names),
    )


def _area(score: np.ndarray, truth: Bool[np.ndarray, " unit"]) -> float:
    """P(score of a true unit > score of another), ties counting half."""
    inside, outside = score[truth], score[~truth]
    above = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
    return float(above)
