"""What changed from one model to another: exact effects in both, and the changes that are sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from mechspex.core.counted import counted
from mechspex.core.json_values import plain, plain_rows, read_number, read_texts
from mechspex.core.provenance import Provenance
from mechspex.core.statistics import Difference
from mechspex.core.units import Term, UnitSet
from mechspex.effects.validation import Validation
from mechspex.recovery.recovery import Recovery
from mechspex.runs.result import RunResult
from mechspex.runs.run import DIFFERENCE
from mechspex.runs.text import subject

if TYPE_CHECKING:
    import matplotlib.figure

# Rows that the text shows of each kind, and the picture of both.
_SHOWN, _DRAWN = 10, 20


@dataclass(frozen=True, eq=False, repr=False)
class ModelDifference(RunResult):
    """Two models on the same masks and prompts, paired; see `mechspex.compare_models`.

    Attributes:
        units: the units, which both models have.
        configuration: what the first model's values depend on.
        configuration_after: what the other model's values depend on.
        recovery: the difference of values, after − before, decoded from random masks and scored on
            others; with it what single units alone would explain.
        before: the exact effects of all single units and of the interactions tested, in the first
            model.
        after: the same in the other model.
        changes: after − before of each, prompt by prompt; confirmed at one false discovery rate
            over all of them.
        clean: the change of the value itself, all units kept.
    """

    schema: ClassVar[str] = "mechspex.model_difference/1"
    called: ClassVar[str] = "difference of models"
    file: ClassVar[str] = DIFFERENCE
    made_by: ClassVar[str] = "mechspex compare-models"

    units: UnitSet
    configuration: Mapping[str, str]
    configuration_after: Mapping[str, str]
    recovery: Recovery
    before: Validation
    after: Validation
    changes: Validation
    clean: Difference

    @property
    def changed(self) -> tuple[Term, ...]:
        """The sets of units whose effect surely differs, the largest change first."""
        found = zip(self.changes.terms, self.changes.confirmed, self.changes.effects, strict=True)
        sure = [(term, abs(change)) for term, holds, change in found if holds]
        return tuple(term for term, _ in sorted(sure, key=lambda one: -one[1]))

    @property
    def changed_units(self) -> tuple[str, ...]:
        """The names of the units whose own effect surely differs, the largest change first."""
        return tuple(self.units.names[term[0]] for term in self.changed if len(term) == 1)

    @property
    def changed_interactions(self) -> tuple[str, ...]:
        """The interactions that surely differ, as they are printed, the largest change first."""
        return tuple(self.units.label(term) for term in self.changed if len(term) > 1)

    def to_pandas(self) -> pd.DataFrame:
        """One row a set of units: its effect ``before`` and ``after``, the ``change`` with the ends
        of its interval, and whether that is ``confirmed``."""
        table = self.changes.to_pandas().rename(columns={"effect": "change"})
        table.insert(2, "before", self.before.effects)
        table.insert(3, "after", self.after.effects)
        return table

    def plot(self) -> "matplotlib.figure.Figure":
        """The largest changes with their intervals, grey where they are not sure."""
        from mechspex.figures.bars import bars
        from mechspex.figures.style import measured

        table = self._strongest(self.to_pandas()).head(_DRAWN)
        return bars(
            table["units"].tolist(),
            table["change"].tolist(),
            intervals=table[["low", "high"]].to_numpy(),
            sure=table["confirmed"].tolist(),
            quantity=f"change of the effect on the {measured(self, None)}",
            heading=f"What changed: {self._models} · {self._task}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Names, effects, changes and scores, with a schema name."""
        return {
            "schema": self.schema,
            "configuration": dict(self.configuration),
            "configuration_after": dict(self.configuration_after),
            "clean": plain([*self.clean.to_list(), self.clean.p_value]),
            "recovery": plain(self.recovery.to_dict()),
            "changed": [self.units.label(term) for term in self.changed],
            "terms": plain_rows(self.to_pandas()),
            "level": self.changes.level,
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the units and all effects prompt by prompt."""
        effects = {name: getattr(self, name).by_columns() for name in _EFFECTS}
        return self.to_dict() | {
            "units": self.units.to_list(),
            "recovery": plain(self.recovery.to_record()),
            "effects": effects,
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> ModelDifference:
        units = UnitSet.from_list(record["units"])
        effects = {name: Validation.of(units, record["effects"][name]) for name in _EFFECTS}
        if len({effects[name].terms for name in _EFFECTS}) > 1:
            raise ValueError("effects of other sets of units in one model than in the other")
        value, low, high, p_value = map(read_number, record["clean"])
        return cls(
            units=units,
            configuration=read_texts(record["configuration"]),
            configuration_after=read_texts(record["configuration_after"]),
            recovery=Recovery.from_dict(record["recovery"]),
            clean=Difference(value, low, high, p_value),
            **effects,
        )

    @property
    def in_short(self) -> str:
        """Which models, and how many effects have changed of how many tested."""
        n_changed, n_tested = len(self.changed), len(self.changes.terms)
        return f"{self._models} · {self._task}: {n_changed:,} of {n_tested:,} effects have changed"

    def __str__(self) -> str:
        n_prompts = counted(self.changes.output_effects.shape[1], "prompt")
        lines = [
            f"{self._models} · {subject(self.configuration, self.units)}",
            f"all units kept: {self.clean:+.3f} from before to after, over {n_prompts}",
            self._decoded,
            *self.changes.remarks,
        ]
        table = self.to_pandas()
        for title, rows in (
            ("units alone: effect of ablating one", table.query("order == 1")),
            ("units together, proposed by the decoded difference", table.query("order > 1")),
        ):
            lines += self._rows(title, self._strongest(rows))
        about = f"false discovery rate {self.changes.level:g} among the {len(table):,} changes"
        return "\n".join([*lines, "", f"intervals over {n_prompts}, paired; {about}"])

    @property
    def _decoded(self) -> str:
        found = self.recovery
        if len(found.function) == 1:
            return "the difference is the same under every mask"
        if found.exact:
            return (
                f"the difference under all {found.n_train:,} masks: exact; single units alone "
                f"give R² {found.additive_r2:.3f}"
            )
        return (
            f"the difference, decoded from {found.n_train:,} masks: R² {found.r2:.3f} on "
            f"{found.n_test:,} others, by single units alone {found.additive_r2:.3f}"
        )

    @staticmethod
    def _strongest(table: pd.DataFrame) -> pd.DataFrame:
        """Those that are sure first, then by size."""
        sizes, sure = table["change"].abs().to_numpy(), table["confirmed"].to_numpy()
        return table.iloc[np.lexsort((-sizes, ~sure))]

    @staticmethod
    def _rows(title: str, table: pd.DataFrame) -> list[str]:
        if not len(table):
            return []
        n_changed = int(np.count_nonzero(table["confirmed"]))
        shown = table[["units", "before", "after", "change", "low", "high", "confirmed"]]
        shown = shown.head(max(_SHOWN, min(n_changed, 2 * _SHOWN)))
        marked = shown.assign(confirmed=["yes" if holds else "–" for holds in shown["confirmed"]])
        lines = [
            "",
            f"{title} ({n_changed:,} of {len(table):,} have changed)",
            marked.to_string(index=False, float_format="{:+.3f}".format),
        ]
        left_out = len(table) - len(shown)
        return [*lines, f"… and {left_out:,} others"] if left_out else lines

    @property
    def _models(self) -> str:
        names = (self.configuration, self.configuration_after)
        return " → ".join(Provenance.of(named).model or "a model" for named in names)

    @property
    def _task(self) -> str:
        return Provenance.of(self.configuration).task or "values"


_EFFECTS = ("before", "after", "changes")
