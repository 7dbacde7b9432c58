"""What pruning answers: the units that each method keeps, their scores, and paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.errors import Refused
from mechspex.core.json_values import plain, plain_rows, read_array, read_texts, read_whole
from mechspex.core.statistics import Difference, holm, mcnemar, paired_difference
from mechspex.core.units import Term, UnitSet
from mechspex.runs.result import RunResult
from mechspex.runs.run import PRUNING
from mechspex.runs.text import metric_in_words, subject
from mechspex.set_functions.set_function import SetFunction

if TYPE_CHECKING:
    import matplotlib.figure

SCHEMA = "mechspex.pruning/1"
Method = Literal["recovered", "additive", "best sampled", "random"]

# 1 − coverage of the intervals.
_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Choice:
    """The units that one method keeps, and what the model does with them alone.

    Attributes:
        method: ``recovered``, ``additive``, ``best sampled`` or ``random``.
        size: how many units were asked for; ``best sampled`` may keep fewer.
        subsets: the columns kept; several subsets for ``random``, one for the other methods.
        values: the value of each subset on the held-out outputs.
    """

    method: Method
    size: int
    subsets: tuple[Term, ...]
    values: Float[np.ndarray, "subset output"]

    @property
    def value(self) -> float:
        """Mean over held-out outputs (and subsets)."""
        return float(self.values.mean())

    @property
    def accuracy(self) -> float:
        """Share of held-out outputs above 0 (mean over subsets)."""
        return float((self.values > 0).mean())


@dataclass(frozen=True)
class ChoiceComparison:
    """The recovered choice against a rival of the same size, on the same held-out outputs.

    Attributes:
        size: how many units are kept.
        rival: the method that it is compared with.
        difference: the value of the recovered choice less that of the rival's; its `p_value` is
            not corrected.
        accuracy_difference: the same difference of the share of outputs above 0.
        only_recovered, only_rival: how many outputs only one of the two gets right; for ``random``
            the mean over subsets.
        accuracy_p: the uncorrected p-value of equal accuracy, by McNemar's exact test. ``random``
            has no single partner; there it is by the paired t of `paired_difference`.
        adjusted_p, adjusted_accuracy_p: the p-values of value and of accuracy, each corrected by
            Holm for all comparisons.
    """

    size: int
    rival: Method
    difference: Difference
    accuracy_difference: float
    only_recovered: float
    only_rival: float
    accuracy_p: float
    adjusted_p: float = np.nan
    adjusted_accuracy_p: float = np.nan


@dataclass(frozen=True, eq=False, repr=False)
class Pruning(RunResult):
    """Choices of units to keep, scored on held-out outputs.

    Attributes:
        units: the units of the value functions.
        configuration: everything the held-out values depend on but the mask.
        function, additive: the functions that the two decoders recovered from their masks.
        choices: the choices, by size and then by method.
        clean, ablated: the held-out values with all units kept and with all ablated.
        masks: how many masks were measured on the outputs of the search.
    """

    schema: ClassVar[str] = SCHEMA
    called: ClassVar[str] = "pruning"
    file: ClassVar[str] = PRUNING
    made_by: ClassVar[str] = "mechspex prune"

    units: UnitSet
    configuration: Mapping[str, str]
    function: SetFunction
    additive: SetFunction
    choices: tuple[Choice, ...]
    clean: Float[np.ndarray, " output"]
    ablated: Float[np.ndarray, " output"]
    masks: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units kept, ascending."""
        return tuple(sorted({choice.size for choice in self.choices}))

    def choice(self, size: int, method: Method = "recovered") -> Choice:
        """The choice of one method at one size.

        Args:
            size: how many units are kept.
            method: ``recovered``, ``additive``, ``best sampled`` or ``random``.

        Raises:
            Refused: a size or method that is not there.
        """
        for choice in self.choices:
            if (choice.size, choice.method) == (size, method):
                return choice
        raise Refused(
            f"no choice of {size} units by {method!r}; sizes are {list(self.sizes)}, methods "
            f"{sorted({choice.method for choice in self.choices})}"
        )

    @property
    def comparisons(self) -> tuple[ChoiceComparison, ...]:
        """The recovered choice against each rival of its size."""
        raw = [
            _compared(self.choice(choice.size), choice)
            for choice in self.choices
            if choice.method != "recovered"
        ]
        values = holm(np.array([one.difference.p_value for one in raw]))
        accuracies = holm(np.array([one.accuracy_p for one in raw]))
        return tuple(
            ChoiceComparison(**{**vars(one), "adjusted_p": p, "adjusted_accuracy_p": q})
            for one, p, q in zip(raw, values.tolist(), accuracies.tolist(), strict=True)
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a size and method: value, accuracy, and what the recovered choice has more,
        with its 95% interval and p-values corrected by Holm."""
        compared = {(one.size, one.rival): one for one in self.comparisons}
        rows = []
        for choice in self.choices:
            row: dict[str, Any] = {
                "kept": choice.size,
                "share": choice.size / len(self.units),
                "method": choice.method,
                "value": choice.value,
                "accuracy": choice.accuracy,
            }
            one = compared.get((choice.size, choice.method))
            if one is not None:
                row |= {
                    "recovered has more": one.difference.value,
                    "low": one.difference.low,
                    "high": one.difference.high,
                    "p": one.adjusted_p,
                    "only recovered right": one.only_recovered,
                    "only rival right": one.only_rival,
                    "accuracy p": one.adjusted_accuracy_p,
                }
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def in_short(self) -> str:
        """What was asked, the clean value, and the sizes that were chosen."""
        return (
            f"{subject(self.configuration, self.units)}; clean {self.clean.mean():+.3f}, "
            f"{', '.join(map(str, self.sizes))} of {len(self.units)} units kept"
        )

    def __str__(self) -> str:
        n_outputs = len(self.clean)
        lines = [
            subject(dict(self.configuration), self.units),
            f"{n_outputs} held-out outputs: all kept {self.clean.mean():+.3f}, right on "
            f"{(self.clean > 0).mean():.0%}; all ablated {self.ablated.mean():+.3f}, "
            f"{(self.ablated > 0).mean():.0%}",
            f"chosen from {self.masks:,} masks",
            "",
            "  kept  method          value  right   recovered has more (95%)   p      "
            "right alone   p",
        ]
        compared = {(one.size, one.rival): one for one in self.comparisons}
        for choice in self.choices:
            line = (
                f"  {choice.size:4d}  {choice.method:12} {choice.value:+8.3f}  "
                f"{choice.accuracy:5.0%}"
            )
            one = compared.get((choice.size, choice.method))
            if one is not None:
                line += (
                    f"   {one.difference!s:25}  {one.adjusted_p:<6.2g} "
                    f"{one.only_recovered:4.3g} : {one.only_rival:<4.3g}   "
                    f"{one.adjusted_accuracy_p:.2g}"
                )
            lines.append(line)
        lines.append("p corrected for all comparisons (Holm), of the value and of accuracy")
        return "\n".join(lines)

    def plot(self, metric: str | None = None) -> "matplotlib.figure.Figure":
        """The held-out value against the number of units kept, a line a method.

        Args:
            metric: what is measured, in words; the value's metric if not given.
        """
        from mechspex.figures.sizes import values_by_size

        return values_by_size(
            self.choices,
            clean=float(self.clean.mean()),
            ablated=float(self.ablated.mean()),
            quantity=metric or metric_in_words(self.configuration),
            heading=f"Units kept · {subject(self.configuration, self.units)}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, with a schema name; JSON can hold it."""
        return {
            "schema": SCHEMA,
            "configuration": dict(self.configuration),
            "clean": plain(self.clean),
            "ablated": plain(self.ablated),
            "masks": self.masks,
            "choices": [
                {
                    "method": choice.method,
                    "size": choice.size,
                    "subsets": [[self.units.names[i] for i in kept] for kept in choice.subsets],
                    "values": plain(choice.values),
                }
                for choice in self.choices
            ],
            "table": plain_rows(self.to_pandas()),
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the units and what both decoders recovered."""
        return self.to_dict() | {
            "units": self.units.to_list(),
            "function": self.function.to_dict(),
            "additive": self.additive.to_dict(),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Pruning:
        units = UnitSet.from_list(record["units"])
        clean = read_array(record["clean"], "output")
        choices = []
        for stored in record["choices"]:
            if stored["method"] not in get_args(Method):
                raise ValueError(f"method {stored['method']!r}")
            subsets = tuple(units.columns(names) for names in stored["subsets"])
            values = read_array(stored["values"], "subset", "output", rows=len(subsets))
            choices.append(Choice(stored["method"], read_whole(stored["size"]), subsets, values))
        return cls(
            units=units,
            configuration=read_texts(record["configuration"]),
            function=SetFunction.from_dict(record["function"]),
            additive=SetFunction.from_dict(record["additive"]),
            choices=tuple(choices),
            clean=clean,
            ablated=read_array(record["ablated"], "output", rows=len(clean)),
            masks=read_whole(record["masks"]),
        )


def _compared(recovered: Choice, rival: Choice) -> ChoiceComparison:
    ours, theirs = recovered.values[0], rival.values
    right, rights = ours > 0, theirs > 0
    accuracy = paired_difference(right.astype(float), rights.astype(float), level=_LEVEL)
    return ChoiceComparison(
        size=rival.size,
        rival=rival.method,
        difference=paired_difference(ours, theirs, level=_LEVEL),
        accuracy_difference=accuracy.value,
        only_recovered=float((right & ~rights).sum() / len(rights)),
        only_rival=float((~right & rights).sum() / len(rights)),
        accuracy_p=mcnemar(right, rights[0]) if len(rights) == 1 else accuracy.p_value,
    )
