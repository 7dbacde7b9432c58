"""What a run found: the recovered function, its held-out scores, and its validated terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.counted import counted
from mechspex.core.csv_tables import write_csv
from mechspex.core.json_values import (
    plain,
    plain_rows,
    read_number,
    read_text,
    read_texts,
    read_whole,
)
from mechspex.core.kinds import KINDS
from mechspex.core.statistics import rank_correlation
from mechspex.core.units import Term, UnitSet, text_of
from mechspex.effects.validation import Validation
from mechspex.recovery.recovery import Recovery
from mechspex.runs.cost import Cost
from mechspex.runs.result import RunResult
from mechspex.runs.run import EXPLANATION
from mechspex.runs.text import effect_tables, last_lines, strongest, subject
from mechspex.screening import Screening
from mechspex.set_functions.set_function import SetFunction
from mechspex.set_functions.structure import Structure, structure_of

if TYPE_CHECKING:
    import matplotlib.figure

SCHEMA = "mechspex.explanation/2"

# The structure is that of this many terms. It is printed if their sets are small enough to read.
_MOST_TERMS, _LARGEST_READABLE = 2_000, 6
# Rows of each table in the text, where a screen has made them many.
_SHOWN = 30


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(RunResult):
    """Which units act alone, which act together, and how sure that is.

    Attributes:
        units: what the masks' columns stand for.
        outputs: names of the value's columns (prompts).
        configuration: everything the values depend on but the mask.
        settings: all that the answer depends on besides the values: budget, density, seeds,
            versions.
        clean, ablated: the value with everything kept and with everything ablated, mean over
            outputs.
        recovery: the recovered set function and its held-out scores.
        validation: the strongest terms, measured exactly.
        cost: how many masks and seconds it took.
        folder: the run's folder; None where values were kept in memory.
        screening: the screen that came first, if one did; `units` are then its survivors.
        in_contexts: the confirmed terms, measured among random masks of the other units; None if
            that was not asked for. The terms were chosen on the same outputs, so these intervals
            are no second test: they show how far the effects spread.
        n_right: on how many outputs the clean value is above 0, where the metric is a difference of
            right and wrong; None for another metric.
    """

    schema: ClassVar[str] = SCHEMA
    called: ClassVar[str] = "explanation"
    file: ClassVar[str] = EXPLANATION
    made_by: ClassVar[str] = "mechspex explain"

    units: UnitSet
    outputs: tuple[str, ...]
    configuration: dict[str, str]
    settings: dict[str, Any]
    clean: float
    ablated: float
    recovery: Recovery
    validation: Validation
    cost: Cost
    folder: Path | None = field(default=None, compare=False)
    screening: Screening | None = None
    in_contexts: Validation | None = None
    n_right: int | None = None

    @property
    def function(self) -> SetFunction:
        """The recovered set function, mean over outputs."""
        return self.recovery.function

    @property
    def terms(self) -> tuple[Term, ...]:
        """The validated sets of units, by column."""
        return self.validation.terms

    @property
    def output_effects(self) -> Float[np.ndarray, "term output"]:
        """The exact effect of each of `terms` on every output, in the ``ablated`` basis."""
        return self.validation.output_effects

    @property
    def r2(self) -> float:
        """The function's R² on fresh masks."""
        return self.recovery.r2

    @property
    def additive_r2(self) -> float:
        """R² on the same fresh masks of the best function of singles."""
        return self.recovery.additive_r2

    @property
    def non_additive_share(self) -> float:
        """The share of the variance left by singles that interactions explain, on fresh masks."""
        return self.recovery.non_additive_share

    @cached_property
    def structure(self) -> Structure:
        """Energy by order and layer, synergy, redundancy and hierarchy of the largest terms."""
        known = not any(KINDS[unit.kind].labelled for unit in self.units)
        layers = [unit.layer for unit in self.units] if known else None
        return structure_of(self.function.truncate(_MOST_TERMS), layers)

    def to_pandas(self) -> pd.DataFrame:
        """The validated terms: exact effect and interval, and beside them the recovered effect.

        Both are in the ``ablated`` basis: a single is the effect of ablating that unit, a pair the
        joint effect less the single ones. ``in_contexts``, where it was asked for, is the mean
        effect of a confirmed term among random masks of the other units. One output has no spread:
        there a term is confirmed if its mean effect in contexts is, with the sign of the exact one.
        """
        frame = self.validation.to_pandas()
        recovered = self.function.to_basis("ablated").to_mapping()
        frame["recovered"] = [recovered.get(term, 0.0) for term in self.validation.terms]
        if self.in_contexts is not None:
            around = zip(self.in_contexts.terms, self.in_contexts.effects.tolist(), strict=True)
            effect = dict(around)
            frame["in_contexts"] = [effect.get(t, np.nan) for t in self.validation.terms]
            if not self.validation.has_spread:
                held = self._held_in_contexts(self.in_contexts)
                frame["confirmed"] = [term in held for term in self.validation.terms]
        return frame

    def _held_in_contexts(self, around: Validation) -> set[Term]:
        """The terms whose mean effect in contexts has the exact one's sign, beyond its interval."""
        exact = dict(zip(self.validation.terms, self.validation.effects.tolist(), strict=True))
        tested = zip(around.terms, around.effects.tolist(), around.confirmed, strict=True)
        return {term for term, effect, holds in tested if holds and effect * exact[term] > 0}

    def singles(self) -> pd.DataFrame:
        """The validated single units, strongest first."""
        return strongest(self.to_pandas().query("order == 1"))

    def interactions(self) -> pd.DataFrame:
        """The validated sets of two and more units, strongest first."""
        return strongest(self.to_pandas().query("order > 1"))

    def top(self, n_terms: int = 5) -> pd.DataFrame:
        """The strongest confirmed terms, units and sets together; of an answer without intervals,
        which confirms nothing, the strongest.

        Args:
            n_terms: how many at most.
        """
        frame = self.to_pandas()
        sure = frame[frame["confirmed"]]
        # Without a spread over outputs nothing is, unless in contexts.
        found = sure if len(sure) or len(self.outputs) > 1 else frame
        return strongest(frame.loc[found.index]).head(n_terms)

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis, mean over outputs}."""
        return self.function.ablated_effects()

    def to_shapiq(self, index: str = "k-SII", order: int = 2) -> Any:
        """The recovered function as a `shapiq.InteractionValues`; its plots take our names as
        ``feature_names=explanation.units.names``.

        Args:
            index: shapiq's name of the index; see `SetFunction.to_shapiq`.
            order: the size of the largest sets, for ``SII``, ``k-SII`` and ``FBII``.

        Raises:
            Refused: shapiq is not installed, or it has no such index here.
        """
        return self.function.to_shapiq(index, order)

    @property
    def single_effects(self) -> Float[np.ndarray, " unit"]:
        """The recovered effect of ablating each unit alone, in the order of `units`."""
        effects = self.function.to_basis("ablated").to_mapping()
        return np.array([effects.get((column,), 0.0) for column in range(len(self.units))])

    @property
    def exact_single_effects(self) -> Float[np.ndarray, " unit"]:
        """The exact effect of ablating each unit alone, in the order of `units`; NaN where that was
        not measured."""
        exact = self.validation.ablated_effects()
        return np.array([exact.get((column,), np.nan) for column in range(len(self.units))])

    @property
    def confirmed_singles(self) -> tuple[int, ...]:
        """Columns of the units whose effect is confirmed, see `to_pandas`."""
        if self.validation.has_spread or self.in_contexts is None:
            return self.validation.confirmed_singles
        held = self._held_in_contexts(self.in_contexts)
        return tuple(t[0] for t in self.validation.terms if len(t) == 1 and t in held)

    def plot(self, metric: str | None = None) -> "matplotlib.figure.Figure":
        """The map of heads where all units are heads, the shaded text where all lie in a text,
        else the strongest interactions.

        `mechspex.figures` has all three.

        Args:
            metric: what is measured, in words; the value's metric if not given.
        """
        from mechspex.figures import TextEffects, head_map, interactions

        if text_of(self.units, self.configuration) is not None:
            return TextEffects.of(self, metric=metric).plot()
        heads = all(unit.kind == "head" and unit.position is None for unit in self.units)
        return (head_map if heads else interactions)(self, metric=metric)

    @property
    def in_short(self) -> str:
        """What was asked, the value with everything kept and ablated, and how well f̂ predicts."""
        return (
            f"{subject(self.configuration, self.units)}; clean {self.clean:+.3f}, all ablated "
            f"{self.ablated:+.3f}; R² {self.r2:.3f}, additive R² {self.additive_r2:.3f}, "
            f"non-additive share {self.non_additive_share:.2f}{self._unseen}"
        )

    @property
    def _unseen(self) -> str:
        share = self.recovery.unseen_share
        return "" if share is None else f", nothing known of {share:.0%} of the pairs"

    def _repr_html_(self) -> str:
        if text_of(self.units, self.configuration) is None:
            return super()._repr_html_()
        from mechspex.figures import TextEffects

        return super()._repr_html_() + TextEffects.of(self).html()

    def _tables(self) -> list[pd.DataFrame]:
        return [self.singles(), self.interactions()]

    def __str__(self) -> str:
        last = last_lines(
            self.cost,
            len(self.outputs),
            level=self.validation.level,
            tested=f"{len(self.validation.terms)} terms tested",
            folder=self.folder,
        )
        most = None if self.screening is None else _SHOWN
        scale = self.clean - self.ablated
        table = effect_tables(self.to_pandas(), beside="recovered", most=most, scale=scale)
        return "\n".join([*self._headline(), *table, *last])

    def _headline(self) -> list[str]:
        recovery = self.recovery
        lines = [
            subject(self.configuration, self.units),
            # What a model reads of a prompt that was taken apart.
            *(f"read: {self.configuration[key]}" for key in ("read",) if key in self.configuration),
            f"clean {self.clean:+.3f}   all ablated {self.ablated:+.3f}   "
            f"(mean over {counted(len(self.outputs), 'output')})",
            *self._warnings(),
            *self._screen_lines(),
            recovery.scores,
        ]
        if recovery.n_failed:
            lines.append(f"{counted(recovery.n_failed, 'mask')} without a finite value left out")
        if self.validation.failed.any():
            lines.append(
                f"{np.count_nonzero(self.validation.failed)} terms could not be tested: "
                "some of their masks have no finite value"
            )
        if self.in_contexts is not None:
            lines.append(self._context_line(self.in_contexts))
        lines += recovery.notices
        if 1 <= self.function.max_order <= _LARGEST_READABLE:
            lines.append(self.structure.summary)
        if not self.validation.terms:
            lines.append("nothing depends on the mask: no terms to report")
        return lines

    def _warnings(self) -> list[str]:
        """What makes an answer look surer than it is."""
        lines, n = [], len(self.outputs)
        if self.n_right is not None and self.n_right < n:
            lines.append(
                f"the model is right on {self.n_right} of {n} prompts; effects on the others say "
                "little of how it does the task"
            )
        fresh = "validated on" in self.settings or self.recovery.exact
        if n > 1 and self.validation.terms and not fresh:
            lines.append(
                "the terms were chosen on the very outputs they are tested on: give fresh ones "
                "(held_out) for a test that they have not passed already"
            )
        lines += self.validation.remarks
        return lines

    def _context_line(self, around: Validation) -> str:
        held = len(self._held_in_contexts(around))
        tested = "confirmed terms" if self.validation.has_spread else "terms"
        return (
            f"among {self.settings['contexts']} random masks of the other units {held} of the "
            f"{len(around.terms)} {tested} keep their sign, beyond their intervals there"
        )

    def _screen_lines(self) -> list[str]:
        screening = self.screening
        if screening is None:
            return []
        lines = [str(screening)]
        if screening.agreement is not None:
            proposed = "the proxy agrees with the model"
            whole = "whole parts, as the answer predicts them and as they were measured, agree"
            lines.append(f"{proposed if screening.terms else whole} {screening.agreement}")
        if screening.terms:
            lines.append(self._agreement())
        return lines if screening.missed is None else [*lines, str(screening.missed)]

    def _agreement(self) -> str:
        """How well the screen's predictions agree with the exact effects of its proposals."""
        assert self.screening is not None
        validation = self.validation
        exact = dict(zip(validation.terms, validation.effects, strict=True))
        confirmed = dict(zip(validation.terms, validation.confirmed, strict=True))
        terms = self.screening.terms
        held = sum(bool(confirmed[term]) for term in terms)
        line = f"{len(terms):,} proposals tested exactly, {held:,} confirmed"
        if len(terms) < 3:
            return line
        measured = np.array([exact[term] for term in terms])
        scores = np.array(self.screening.scores)
        r = rank_correlation(scores, measured)
        signs = float(np.mean(np.sign(scores) == np.sign(measured)))
        return f"{line}; rank correlation with what was predicted {r:.2f}, same sign {signs:.0%}"

    def to_dict(self) -> dict[str, Any]:
        """The explanation as plain numbers and lists, with a schema name; JSON can hold it."""
        recovery, validation = self.recovery, self.validation
        return {
            "schema": SCHEMA,
            "units": self.units.to_list(),
            "outputs": list(self.outputs),
            "configuration": self.configuration,
            "settings": self.settings,
            "clean": plain(self.clean),
            "ablated": plain(self.ablated),
            "recovery": plain(recovery.to_dict()),
            "terms": plain_rows(self.to_pandas()),
            "validation": validation.by_columns(),
            "in_contexts": None if self.in_contexts is None else self.in_contexts.by_columns(),
            "n_right": self.n_right,
            "cost": asdict(self.cost),
            "screening": None if self.screening is None else self.screening.to_dict(),
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with what its sentences say as numbers: decoder scores, a proxy's agreement."""
        record = self.to_dict()
        record["recovery"] |= plain({"decoder_scores": self.recovery.decoder_scores})
        if self.screening is not None:
            record["screening"] = self.screening.to_record()
        return record

    def save(self, path: str | Path) -> None:
        """Write the explanation as JSON; in a folder also its terms as ``terms.csv``.

        Args:
            path: a folder, or the file to write.
        """
        super().save(path)
        if Path(path).is_dir():
            write_csv(Path(path) / "terms.csv", self.to_pandas())

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Explanation:
        units = UnitSet.from_list(record["units"])
        # Answers that were kept before there were screens, or contexts, have no such entry.
        around, screening = record.get("in_contexts"), record.get("screening")
        right = record.get("n_right")
        return cls(
            units=units,
            outputs=tuple(read_text(name) for name in record["outputs"]),
            configuration=read_texts(record["configuration"]),
            settings=dict(record["settings"]),
            clean=read_number(record["clean"]),
            ablated=read_number(record["ablated"]),
            recovery=Recovery.from_dict(record["recovery"]),
            validation=Validation.of(units, record["validation"]),
            cost=Cost.from_dict(record["cost"]),
            screening=None if screening is None else Screening.from_dict(screening),
            in_contexts=None if around is None else Validation.of(units, around),
            n_right=None if right is None else read_whole(right),
        )

    def _in_folder(self, folder: Path) -> Explanation:
        return replace(self, folder=folder)
