"""What was measured exactly: effects of sets of units, their intervals, and which are confirmed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.core.counted import counted
from mechspex.core.json_values import (
    plain,
    plain_rows,
    read_array,
    read_number,
    read_term,
    read_texts,
    read_whole,
)
from mechspex.core.statistics import errors_to_discover, standard_error
from mechspex.core.units import Term, UnitSet
from mechspex.runs.result import RunResult
from mechspex.runs.run import VALIDATED
from mechspex.runs.text import effect_tables, subject

if TYPE_CHECKING:
    import matplotlib.figure

# An interval as wide as this share of the largest effect is more than rounding.
_ROUNDED = 1e-4
# On fewer outputs Student's quantile is half as large again as that of many, or more.
_FEW = 8


@dataclass(frozen=True, eq=False, repr=False)
class Validation(RunResult):
    """Exact effects of sets of units in the whole model.

    Attributes:
        units: what the terms' indices stand for.
        terms: the sets, of order 1 and up.
        output_effects: ablated(T) for every term and output, in the units of the value.
        intervals: the interval of each mean effect over outputs, one row ``[low, high]`` a term.
        confirmed: whether the interval leaves out zero. With one output and no contexts it is exact
            for this output and has no spread: then this says only that it is more than rounding,
            and what is printed and tabled calls nothing confirmed.
        level: the false discovery rate: the expected share of false terms among the confirmed.
        configuration: what the values depend on; empty of a function of one's own, which has no
            task and no model, as a part of another answer, and in answers of earlier versions.
        contexts: in how many random masks of the other units the effects were measured and
            averaged; 0 where all others were kept, and in answers of earlier versions.
        keep: the density of these masks; 1 where all others were kept.
        errors: the standard errors in contexts; None where outputs alone spread.
    """

    schema: ClassVar[str] = "mechspex.validation/3"
    older_schemas: ClassVar[tuple[str, ...]] = ("mechspex.validation/2",)
    called: ClassVar[str] = "validation"
    file: ClassVar[str] = VALIDATED
    made_by: ClassVar[str] = "mechspex validate"

    units: UnitSet
    terms: tuple[Term, ...]
    output_effects: Float[np.ndarray, "term output"]
    intervals: Float[np.ndarray, "term 2"]
    confirmed: Bool[np.ndarray, " term"]
    level: float
    configuration: Mapping[str, str] = field(default_factory=dict)
    contexts: int = 0
    keep: float = 1.0
    errors: Float[np.ndarray, " term"] | None = None

    @property
    def effects(self) -> Float[np.ndarray, " term"]:
        """ablated(T), mean over outputs: a single is the effect of ablating that unit, a pair the
        joint effect less the two single ones, and so on."""
        return self.output_effects.mean(axis=1)

    @property
    def failed(self) -> Bool[np.ndarray, " term"]:
        """Terms that could not be measured: a mask of theirs has no finite value."""
        return ~np.isfinite(self.effects)

    @property
    def standard_errors(self) -> Float[np.ndarray, " term"]:
        """The standard error of each mean effect over outputs, and over contexts where there are
        some: √(s²/n + c²/m), with s² the variance of a term's effects over n outputs and c² that of
        their means over m contexts."""
        # A failed mask leaves what is not finite.
        with np.errstate(invalid="ignore"):
            return standard_error(self.output_effects) if self.errors is None else self.errors

    @property
    def has_spread(self) -> bool:
        """Whether effects were measured on several outputs or in contexts, so that intervals say
        something."""
        if self.output_effects.shape[1] != 1:
            return True
        widths = self.intervals[:, 1] - self.intervals[:, 0]
        largest = np.abs(self.effects[~self.failed]).max(initial=0.0)
        # Rounding has a width as well.
        return bool((widths > _ROUNDED * largest).any())

    @property
    def smallest_effect(self) -> float | None:
        """From where on these outputs confirm a mean effect of typical spread; None without one.

        The median over terms of t · s / √n: s is a term's standard deviation over n outputs, t
        Student's quantile at the corrected level. An effect of just that size is confirmed in about
        every second sample of outputs.
        """
        widths = self.intervals[:, 1] - self.intervals[:, 0]
        measured = widths[np.isfinite(widths)]
        if not self.has_spread or not len(measured):
            return None
        return float(np.median(measured)) / 2

    @property
    def remarks(self) -> list[str]:
        """What few outputs cannot show, as a line; none where there are enough."""
        n_outputs, smallest = self.output_effects.shape[1], self.smallest_effect
        if not 1 < n_outputs < _FEW or smallest is None:
            return []
        return [
            f"{n_outputs} outputs confirm a mean effect from about {smallest:.2g} on, at the "
            "spread that the tested terms have over them; more outputs confirm smaller ones"
        ]

    @property
    def confirmed_singles(self) -> tuple[int, ...]:
        """Columns of the units whose own effect is confirmed."""
        if not self.has_spread:
            return ()
        pairs = zip(self.terms, self.confirmed, strict=True)
        return tuple(term[0] for term, holds in pairs if holds and len(term) == 1)

    @property
    def kept_effects(self) -> Float[np.ndarray, " term"]:
        """kept(T) in the whole model, the derivative of the value by T: (−1)^{|T|} ablated(T)."""
        return self.effects * np.array([(-1.0) ** len(term) for term in self.terms])

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis, mean over outputs}."""
        return dict(zip(self.terms, self.effects.tolist(), strict=True))

    def to_pandas(self) -> pd.DataFrame:
        """A frame with one row a term, in the order of `terms`.

        ``low`` and ``high`` are corrected for the number of terms; ``se`` is the plain standard
        error, over outputs and contexts. With one output and no contexts there is no spread: these
        are NaN, and nothing is confirmed.
        """
        unsure = np.full(len(self.terms), np.nan)
        spread, n_outputs = self.has_spread, self.output_effects.shape[1]
        return pd.DataFrame(
            {
                "units": [self.units.label(term) for term in self.terms],
                "order": [len(term) for term in self.terms],
                "effect": self.effects,
                "low": self.intervals[:, 0] if spread else unsure,
                "high": self.intervals[:, 1] if spread else unsure,
                "confirmed": self.confirmed & spread,
                "se": self.standard_errors if n_outputs > 1 or self.contexts else unsure,
            }
        )

    def plot(self, metric: str | None = None) -> "matplotlib.figure.Figure":
        """The strongest effects on every output, with their means and intervals.

        Args:
            metric: what is measured, in words.
        """
        from mechspex.figures.prompts import beeswarm

        return beeswarm(self, metric=metric)

    def rows(self, chosen: Sequence[int]) -> Validation:
        """The validation of some of the terms.

        Args:
            chosen: the places of these terms.
        """
        return replace(
            self,
            terms=tuple(self.terms[row] for row in chosen),
            output_effects=self.output_effects[chosen],
            intervals=self.intervals[chosen],
            confirmed=self.confirmed[chosen],
            errors=None if self.errors is None else self.errors[chosen],
        )

    def to_dict(self) -> dict[str, Any]:
        """The effects as plain numbers and lists, with a schema name; JSON can hold it."""
        measured = self.by_columns()
        told = {"configuration": dict(self.configuration)} if self.configuration else {}
        return {
            "schema": self.schema,
            **told,
            "level": self.level,
            "terms": plain_rows(self.to_pandas()),
            "columns": measured.pop("terms"),
        } | measured

    def by_columns(self) -> dict[str, Any]:
        """What larger results hold, which have the units and a row a term themselves."""
        around = {"contexts": self.contexts, "keep": self.keep, "errors": plain(self.errors)}
        # No row tells of how many outputs there are no terms.
        alone = {} if self.terms else {"n_outputs": self.output_effects.shape[1]}
        return {
            "terms": [list(term) for term in self.terms],
            "output_effects": plain(self.output_effects),
            "intervals": plain(self.intervals),
            "level": self.level,
            **(around if self.contexts else {}),
            **alone,
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the units that its terms are of."""
        return self.to_dict() | {"units": self.units.to_list()}

    @classmethod
    def from_dict(cls, record: Any, old_record: dict[str, Any] | None = None) -> Validation:
        """The validation that `to_record` describes.

        Args:
            record: what `to_record` returned, or JSON of it read back.
            old_record: with units in place of the record, what `to_dict` gave; `of` replaces that.

        Raises:
            Refused: a record of something else, or one that is incomplete or malformed.
        """
        if old_record is None:
            return super().from_dict(record)
        warnings.warn(
            "Validation.from_dict(units, record) is now Validation.of(units, record)",
            DeprecationWarning,
            stacklevel=2,
        )
        return cls.of(record, old_record)

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Validation:
        return cls.of(UnitSet.from_list(record["units"]), record)

    @classmethod
    def of(cls, units: UnitSet, record: dict[str, Any]) -> Validation:
        """The validation that `to_dict` or `by_columns` wrote.

        Args:
            units: the units that its terms are about.
            record: what they returned, or JSON of it read back; null stands for a number that is
                not finite.
        """
        # Before the third schema, and inside of larger results, there are no rows beside columns.
        columns = record["columns" if "columns" in record else "terms"]
        terms = tuple(read_term(stored) for stored in columns)
        units.label(column for term in terms for column in term)
        intervals = read_array(record["intervals"], "term", "end", rows=len(terms))
        intervals = intervals.reshape(-1, 2)
        errors = record.get("errors")
        effects = read_array(record["output_effects"], "term", "output", rows=len(terms))
        if not terms:
            effects = np.empty((0, read_whole(record.get("n_outputs", 1))))
        return cls(
            units=units,
            terms=terms,
            output_effects=effects,
            intervals=intervals,
            confirmed=(intervals[:, 0] > 0) | (intervals[:, 1] < 0),
            level=read_number(record["level"]),
            configuration=read_texts(record.get("configuration", {})),
            contexts=read_whole(record.get("contexts", 0)),
            keep=read_number(record.get("keep", 1.0)),
            errors=None if errors is None else read_array(errors, "term", rows=len(terms)),
        )

    @property
    def in_short(self) -> str:
        """What was asked, how many sets were measured on how many outputs, and are confirmed."""
        return "; ".join([*self._subject, self._counts])

    @property
    def _subject(self) -> list[str]:
        """Task, model and so on, where they are known."""
        return [subject(self.configuration, self.units)] if self.configuration else []

    @property
    def _counts(self) -> str:
        n_outputs = self.output_effects.shape[1]
        measured = f"{counted(len(self.terms), 'set')} of {self.units.description}"
        if not self.has_spread:
            return f"{measured} on one output: exact for it, no intervals"
        return (
            f"{measured} on {counted(n_outputs, 'output')}: "
            f"{np.count_nonzero(self.confirmed):,} confirmed (false discovery rate {self.level:g})"
        )

    def __str__(self) -> str:
        table = effect_tables(self.to_pandas())
        return "\n".join([*self._subject, self._counts, *self.remarks, *table])


def needed(n_outputs: int, n_terms: int, level: float) -> str | None:
    """How far an effect must stand out on few outputs, known before any is measured.

    Args:
        n_outputs: on how many outputs terms will be tested.
        n_terms: how many terms.
        level: the false discovery rate.

    Returns:
        A line; None of enough outputs, and of one, which confirms nothing.
    """
    if not 1 < n_outputs < _FEW:
        return None
    now, then = (errors_to_discover(n, n_terms, level) for n in (n_outputs, 4 * n_outputs))
    return (
        f"with {n_outputs} fresh prompts an effect must lie {now:.1f} standard errors from zero "
        f"to be confirmed alone among {n_terms:,} terms; with {4 * n_outputs} {then:.1f}"
    )
