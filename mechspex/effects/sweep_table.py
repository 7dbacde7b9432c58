"""What a sweep answers: the exact effect of every unit, or every pair of units."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.core.counted import counted
from mechspex.core.csv_tables import write_csv
from mechspex.core.json_values import (
    plain,
    plain_rows,
    read_array,
    read_text,
    read_texts,
    read_whole,
)
from mechspex.core.units import Term, UnitSet
from mechspex.effects.validation import Validation
from mechspex.runs.cost import Cost
from mechspex.runs.result import RunResult
from mechspex.runs.run import SWEEP
from mechspex.runs.text import effect_tables, last_lines, strongest, subject

if TYPE_CHECKING:
    import matplotlib.figure

SCHEMA = "mechspex.sweep/1"

# Rows that the text shows of each table.
_SHOWN = 20
# Sets beyond which JSON takes hundreds of megabytes.
_MOST_AS_JSON = 200_000


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(RunResult):
    """The exact effect of ablating every unit, or every pair, in the otherwise whole model, or in
    random contexts.

    Attributes:
        units: what the terms' indices stand for.
        outputs: names of the value's columns (prompts).
        configuration: everything the values depend on but the mask.
        order: 1, singles; 2, singles and pairs.
        clean: the value with every unit kept.
        values: the value with each term ablated and every other unit kept; in contexts the mean.
        tested: the effects of the singles, then those of the pairs, with intervals over outputs;
            the false discovery rate holds in each of them on its own.
        cost: what it took.
        folder: the run's folder; None where values were kept in memory.
    """

    schema: ClassVar[str] = SCHEMA
    called: ClassVar[str] = "sweep"
    file: ClassVar[str] = "sweep.json"
    made_by: ClassVar[str] = "mechspex sweep"

    units: UnitSet
    outputs: tuple[str, ...]
    configuration: dict[str, str]
    order: int
    clean: Float[np.ndarray, " output"]
    values: Float[np.ndarray, "term output"]
    tested: tuple[Validation, ...]
    cost: Cost
    folder: Path | None = field(default=None, compare=False)

    @property
    def contexts(self) -> int:
        """In how many random masks of the other units effects were measured; 0: all were kept."""
        return self.tested[0].contexts

    @property
    def keep(self) -> float:
        """The density of these masks; 1 where all others were kept."""
        return self.tested[0].keep

    @property
    def terms(self) -> tuple[Term, ...]:
        """The units that were ablated, by column, then the pairs of them."""
        return tuple(term for tested in self.tested for term in tested.terms)

    @property
    def output_effects(self) -> Float[np.ndarray, "term output"]:
        """ablated(i) = f(all but i) − f(all) and ablated(i, j) = f(all but i and j) − f(all but i)
        − f(all but j) + f(all), for every output; in contexts the means of the same with the other
        units as each context has them."""
        return np.concatenate([tested.output_effects for tested in self.tested])

    @property
    def effects(self) -> Float[np.ndarray, " term"]:
        """The same, mean over outputs."""
        return self.output_effects.mean(axis=1)

    @property
    def standard_errors(self) -> Float[np.ndarray, " term"]:
        """The standard error of each effect, over outputs and, where there are some, contexts."""
        return np.concatenate([tested.standard_errors for tested in self.tested])

    @property
    def failed(self) -> Bool[np.ndarray, " term"]:
        """Terms whose own mask has no finite value; a pair of such a unit has no effect either."""
        return ~np.isfinite(self.values.mean(axis=1))

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis, mean over outputs}."""
        return dict(zip(self.terms, self.effects.tolist(), strict=True))

    @property
    def single_effects(self) -> Float[np.ndarray, " unit"]:
        """The effect of ablating each unit alone, in the order of `units`; NaN if not measured."""
        effects = np.full(len(self.units), np.nan)
        singles = self.tested[0]
        effects[[column for (column,) in singles.terms]] = singles.effects
        return effects

    @property
    def exact_single_effects(self) -> Float[np.ndarray, " unit"]:
        """The same: all that a sweep says is exact."""
        return self.single_effects

    @property
    def confirmed_singles(self) -> tuple[int, ...]:
        """Columns of the units whose effect is confirmed: its interval leaves out zero."""
        return self.tested[0].confirmed_singles

    def to_pandas(self) -> pd.DataFrame:
        """A frame with one row a term, in the order of `terms`: the effect in the ``ablated`` basis
        (mean over outputs) with its interval, and the value under that ablation."""
        frame = pd.concat([tested.to_pandas() for tested in self.tested], ignore_index=True)
        return frame.assign(value=self.values.mean(axis=1))

    def singles(self) -> pd.DataFrame:
        """The single units, strongest first."""
        return strongest(self.to_pandas().query("order == 1"))

    def pairs(self) -> pd.DataFrame:
        """The pairs, strongest first; none in a sweep of order 1."""
        return strongest(self.to_pandas().query("order == 2"))

    def __str__(self) -> str:
        counts = [_count(len(tested.terms), order) for order, tested in enumerate(self.tested, 1)]
        lines = [
            subject(self.configuration, self.units),
            f"clean {self.clean.mean():+.3f}   (mean over {counted(len(self.outputs), 'output')})",
            f"exact: {' and '.join(counts)} ablated, each {self._among}",
        ]
        if self.failed.any():
            terms = [term for term, failed in zip(self.terms, self.failed, strict=True) if failed]
            named = ", ".join(self.units.label(term) for term in terms[:6])
            lines.append(
                f"{len(terms):,} of the masks have no finite value: {named}"
                f"{', …' if len(terms) > 6 else ''}"
            )
        lines += effect_tables(self.to_pandas(), beside="value", most=_SHOWN)
        lines += last_lines(
            self.cost,
            len(self.outputs),
            level=self.tested[0].level,
            tested=" and among the ".join(counts),
            folder=self.folder,
            contexts=self.contexts,
        )
        return "\n".join(lines)

    @property
    def _among(self) -> str:
        """What the other units were, in words."""
        if not self.contexts:
            return "alone"
        return (
            f"in {self.contexts:,} random contexts that keep a unit with probability {self.keep:g}"
        )

    @property
    def in_short(self) -> str:
        """What was asked, the clean value, and what was ablated."""
        counts = [_count(len(tested.terms), order) for order, tested in enumerate(self.tested, 1)]
        return (
            f"{subject(self.configuration, self.units)}; clean {self.clean.mean():+.3f}, "
            f"{' and '.join(counts)} ablated{f' {self._among}' if self.contexts else ''}"
        )

    def _tables(self) -> list[pd.DataFrame]:
        return [self.singles(), self.pairs()]

    def plot(self, metric: str | None = None) -> "matplotlib.figure.Figure":
        """The map of layers and heads, coloured by the effect of ablating each alone; of neurons,
        and of units without layers, the strongest effects, output by output.

        Args:
            metric: what is measured, in words; the value's metric if not given.
        """
        from mechspex.figures import beeswarm, head_map

        if not {unit.kind for unit in self.units} <= {"head", "mlp"}:
            return beeswarm(self, metric=metric)
        told = [f"{subject(self.configuration, self.units)} · density {self.keep:g}"]
        return head_map(self, metric=metric, names=told if self.contexts else None)

    def to_dict(self) -> dict[str, Any]:
        """The sweep as plain numbers and lists, with a schema name; JSON can hold it."""
        return {
            "schema": SCHEMA,
            "units": self.units.to_list(),
            "outputs": list(self.outputs),
            "configuration": self.configuration,
            "order": self.order,
            "clean": plain(self.clean),
            "terms": plain_rows(self.to_pandas()),
            "output_effects": plain(self.output_effects),
            "level": self.tested[0].level,
            "n_failed": int(self.failed.sum()),
            "cost": asdict(self.cost),
        }

    def to_record(self) -> dict[str, Any]:
        """What a copy needs: every value and effect, without the rows that follow from them."""
        return {
            "schema": self.schema,
            "units": self.units.to_list(),
            "outputs": list(self.outputs),
            "configuration": self.configuration,
            "order": self.order,
            "clean": plain(self.clean),
            "values": plain(self.values),
            "tested": [tested.by_columns() for tested in self.tested],
            "cost": asdict(self.cost),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Sweep:
        units = UnitSet.from_list(record["units"])
        tested = tuple(Validation.of(units, stored) for stored in record["tested"])
        n_terms = sum(len(each.terms) for each in tested)
        if not 1 <= len(tested) == read_whole(record["order"]) <= 2:
            raise ValueError(f"{len(tested)} orders")
        return cls(
            units=units,
            outputs=tuple(read_text(name) for name in record["outputs"]),
            configuration=read_texts(record["configuration"]),
            order=len(tested),
            clean=read_array(record["clean"], "output", rows=len(record["outputs"])),
            values=read_array(record["values"], "term", "output", rows=n_terms),
            tested=tested,
            cost=Cost.from_dict(record["cost"]),
        )

    def save(self, path: str | Path) -> None:
        """Write the sweep as JSON; in a folder as ``sweep.csv`` too, and as that alone where it has
        more sets than JSON is fit for.

        Args:
            path: a folder, or the file to write.
        """
        if Path(path).is_dir():
            write_csv(Path(path) / SWEEP, self.to_pandas())
        if len(self.values) <= _MOST_AS_JSON or not Path(path).is_dir():
            super().save(path)

    def _in_folder(self, folder: Path) -> Sweep:
        return replace(self, folder=folder)


def _count(number: int, order: int) -> str:
    """``270 singles``, ``1 pair``."""
    return f"{number:,} {'single' if order == 1 else 'pair'}{'' if number == 1 else 's'}"
