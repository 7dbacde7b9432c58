"""The smallest set of units that decides: proven on a recovered function, measured on the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.json_values import (
    plain,
    read_array,
    read_number,
    read_term,
    read_text,
    read_whole,
)
from mechspex.core.result import Result
from mechspex.core.units import Term, UnitSet

if TYPE_CHECKING:
    import matplotlib.figure

Question = Literal["suffices", "flips"]


@dataclass(frozen=True, eq=False, repr=False)
class SmallestSet(Result):
    """A smallest set of units that suffices when kept alone, or flips the answer when ablated.

    Attributes:
        question: ``suffices`` or ``flips``.
        units: what the columns of a mask stand for.
        value_of: what the value is: the name of an output, or of the mean over outputs.
        clean, ablated: the value with everything kept, and with everything ablated.
        goal: the value to reach.
        tried: the sets that were measured, by column, in order.
        predicted: what the recovered function says of each set's mask.
        measured: the value of each set's mask.
        least: by the recovered function no set of fewer units reaches the goal: proven by an
            integer program. n + 1 where no set does.
        greedy: how many units the first prefix of a greedy ranking of the same function has whose
            measured value reaches the goal; None where none of those measured does.
    """

    schema: ClassVar[str] = "mechspex.smallest_set/1"
    called: ClassVar[str] = "smallest set"

    question: Question
    units: UnitSet
    value_of: str
    clean: float
    ablated: float
    goal: float
    tried: tuple[Term, ...]
    predicted: Float[np.ndarray, " set"]
    measured: Float[np.ndarray, " set"]
    least: int
    greedy: int | None

    @property
    def rises(self) -> bool:
        """Whether the goal is reached from below."""
        return self.goal > (self.ablated if self.question == "suffices" else self.clean)

    @property
    def reached(self) -> np.ndarray:
        """Which of the sets reach the goal in the model."""
        if self.rises:
            return self.measured >= self.goal
        return self.measured <= self.goal

    @property
    def members(self) -> Term | None:
        """The first set that the model confirms, by column; None if it confirms none."""
        return next((s for s, holds in zip(self.tried, self.reached, strict=True) if holds), None)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the members; None without a confirmed set."""
        members = self.members
        return None if members is None else tuple(self.units.names[c] for c in members)

    @property
    def confirmed(self) -> bool:
        """Whether a set reaches the goal in the model as well."""
        return self.members is not None

    @property
    def proven(self) -> bool:
        """Whether by the recovered function no set of fewer units reaches the goal."""
        members = self.members
        return members is not None and len(members) <= self.least

    def to_pandas(self) -> pd.DataFrame:
        """One row a set that was measured: its units, size, predicted and measured value."""
        return pd.DataFrame(
            {
                "units": [self.units.label(term) for term in self.tried],
                "size": [len(term) for term in self.tried],
                "predicted": self.predicted,
                "measured": self.measured,
                "reached": self.reached,
            }
        )

    def plot(self) -> "matplotlib.figure.Figure":
        """Predicted and measured values of the sets, with the goal."""
        from mechspex.figures.tried_sets import tried_sets

        return tried_sets(self)

    def to_dict(self) -> dict[str, Any]:
        """The sets as plain numbers and lists, with a schema name."""
        return {
            "schema": self.schema,
            "question": self.question,
            "units": self.units.to_list(),
            "value_of": self.value_of,
            "clean": self.clean,
            "ablated": self.ablated,
            "goal": self.goal,
            "tried": [list(term) for term in self.tried],
            "predicted": plain(self.predicted),
            "measured": plain(self.measured),
            "least": self.least,
            "greedy": self.greedy,
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> SmallestSet:
        units = UnitSet.from_list(record["units"])
        tried = tuple(read_term(term) for term in record["tried"])
        units.label(column for term in tried for column in term)
        if record["question"] not in get_args(Question):
            raise ValueError(f"question {record['question']!r}")
        greedy = record["greedy"]
        return cls(
            question=record["question"],
            units=units,
            value_of=read_text(record["value_of"]),
            clean=read_number(record["clean"]),
            ablated=read_number(record["ablated"]),
            goal=read_number(record["goal"]),
            tried=tried,
            predicted=read_array(record["predicted"], "set", rows=len(tried)),
            measured=read_array(record["measured"], "set", rows=len(tried)),
            least=read_whole(record["least"]),
            greedy=None if greedy is None else read_whole(greedy),
        )

    @property
    def in_short(self) -> str:
        """The set's size and values, whether it is proven and confirmed, and greedy's size."""
        kept = "kept alone" if self.question == "suffices" else "ablated"
        asked = f"the fewest of {len(self.units)} units that, {kept}, bring {self.value_of}"
        asked += f" to {self.goal:+.3f} (clean {self.clean:+.3f})"
        beside = "greedy: none" if self.greedy is None else f"greedy: {self.greedy}"
        members = self.members
        if members is None:
            told = "none by the recovered function" if not self.tried else "none confirmed"
            return f"{asked}: {told}, {len(self.tried)} sets measured; {beside}"
        row = self.tried.index(members)
        proof = "proven smallest" if self.proven else f"not proven, at least {self.least}"
        return (
            f"{asked}: {len(members)} units, measured {self.measured[row]:+.3f}, predicted "
            f"{self.predicted[row]:+.3f}, {proof} on the recovered function; {beside}"
        )

    def __str__(self) -> str:
        lines = [self.in_short]
        for term, told, value, holds in zip(
            self.tried, self.predicted, self.measured, self.reached, strict=True
        ):
            remark = "" if holds else "   not confirmed"
            label = self.units.label(term) or "nothing"
            lines.append(f"  {label}   predicted {told:+.3f}   measured {value:+.3f}{remark}")
        return "\n".join(lines)
