"""What self-repair answers: for every unit which others make up for it, as a table and a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import networkx as nx
import numpy as np
import pandas as pd

from mechspex.core.counted import counted
from mechspex.core.json_values import (
    plain,
    read_estimate,
    read_number,
    read_term,
    read_texts,
    read_whole,
)
from mechspex.core.statistics import Estimate
from mechspex.core.units import Term, UnitSet
from mechspex.runs.result import RunResult
from mechspex.runs.run import REPAIR
from mechspex.runs.text import subject

if TYPE_CHECKING:
    import matplotlib.figure

SCHEMA = "mechspex.self_repair/1"
Relation = Literal["takes over", "opposes less", "no repair"]

# Rows that the text shows.
_SHOWN = 20


@dataclass(frozen=True)
class Repair:
    """What ablating `unit` costs with `by` in place and without it; see `self_repair`.

    Attributes:
        unit, by: columns i and j.
        loss: a_i, the effect of ablating i in the whole model.
        direct: a_{i|j} = a_i + a_ij, the effect of ablating i where j is ablated already.
        before: a_j, the effect of ablating j in the whole model.
        after: a_{j|i} = a_j + a_ij, the effect of ablating j where i is ablated already.
        interaction: a_ij with the interval of `validate`, which leaves out zero if the interaction
            is confirmed.
        confirmed: whether the repair holds beyond the spread over outputs.
    """

    unit: int
    by: int
    loss: Estimate
    direct: Estimate
    before: Estimate
    after: Estimate
    interaction: Estimate
    confirmed: bool

    @property
    def share(self) -> float:
        """The share of i's direct effect that j makes up for: a_ij / a_{i|j}.

        1 is all of it, above 1 more than all. NaN where nothing is repaired, or a_{i|j} is 0.
        """
        if self.relation == "no repair" or not self.direct.value:
            return float("nan")
        return self.interaction.value / self.direct.value

    @property
    def relation(self) -> Relation:
        """How j repairs i."""
        if not is_repair(self.loss.value, self.interaction.value):
            return "no repair"
        same = self.interaction.value * self.after.value > 0
        return "takes over" if same else "opposes less"


@dataclass(frozen=True)
class Repaired:
    """A unit and all that is confirmed to repair it, ablated together.

    Attributes:
        unit: column i.
        by: columns B of its confirmed repairers, the strongest first.
        loss: a_i, the effect of ablating i in the whole model.
        direct: a_{i|B}, the effect of ablating i where all of B are ablated already.
    """

    unit: int
    by: Term
    loss: Estimate
    direct: Estimate

    @property
    def share(self) -> float:
        """The share of i's direct effect that all of B make up for: 1 − a_i / a_{i|B}.

        NaN where the interval of a_{i|B} does not leave out zero.
        """
        # An interval that leaves out 0 has its value outside of it, if a file says so.
        if not self.direct.leaves_out_zero or not self.direct.value:
            return float("nan")
        return 1 - self.loss.value / self.direct.value


@dataclass(frozen=True, eq=False, repr=False)
class SelfRepair(RunResult):
    """Which units make up for which, measured exactly.

    Attributes:
        units: what the columns stand for.
        configuration: everything the values depend on but the mask.
        repairs: the tested directions, confirmed ones first, then by the size of a_ij.
        repaired: the units with confirmed repairers, the best repaired first.
        n_pairs: how many pairs were measured.
        level: the false discovery rate of the interactions among them.
        n_outputs: how many outputs (prompts) the intervals are about.
        masks: how many masks were measured.
    """

    schema: ClassVar[str] = SCHEMA
    called: ClassVar[str] = "self-repair"
    file: ClassVar[str] = REPAIR
    made_by: ClassVar[str] = "mechspex self-repair"

    units: UnitSet
    configuration: Mapping[str, str]
    repairs: tuple[Repair, ...]
    repaired: tuple[Repaired, ...]
    n_pairs: int
    level: float
    n_outputs: int
    masks: int

    @property
    def confirmed(self) -> tuple[Repair, ...]:
        """The repairs that hold beyond the spread over outputs."""
        return tuple(repair for repair in self.repairs if repair.confirmed)

    def to_pandas(self) -> pd.DataFrame:
        """One row a direction, in the order of `repairs`.

        It holds the ablated unit, who repairs it and how, and their effects before and after.
        """
        return pd.DataFrame([self._row(repair) for repair in self.repairs], columns=_COLUMNS)

    def graph(self) -> nx.DiGraph:
        """An edge i → j for every confirmed repair: when i is ablated, j steps in."""
        graph = nx.DiGraph()
        for repair in self.confirmed:
            for column, effect in ((repair.unit, repair.loss), (repair.by, repair.before)):
                graph.add_node(self.units.names[column], effect=effect.value)
            graph.add_edge(
                self.units.names[repair.unit],
                self.units.names[repair.by],
                interaction=repair.interaction.value,
                share=repair.share,
                relation=repair.relation,
            )
        return graph

    def plot(self, metric: str | None = None) -> "matplotlib.figure.Figure":
        """The map of confirmed repairs: an arrow from a head to those that step in for it.

        Args:
            metric: what the colours measure, in words; the value's metric if not given.

        Raises:
            Refused: the units are not all heads.
        """
        from mechspex.figures.repair_map import self_repair_map

        return self_repair_map(self, metric=metric)

    @property
    def in_short(self) -> str:
        """What was asked, and how many repairs are confirmed among how many pairs."""
        return (
            f"{subject(self.configuration, self.units)}; {len(self.confirmed)} repairs confirmed "
            f"among {counted(self.n_pairs, 'pair')} on {counted(self.n_outputs, 'output')}"
        )

    def __str__(self) -> str:
        names = self.units.names
        width = max((len(name) for name in names), default=4)
        lines = [
            subject(dict(self.configuration), self.units),
            f"{counted(self.n_pairs, 'pair')} measured on {counted(self.n_outputs, 'output')} "
            f"with {counted(self.masks, 'mask')}; "
            f"{len(self.confirmed)} repairs confirmed (false discovery rate {self.level:g} among "
            "the pairs)",
        ]
        if not self.n_pairs:
            lines.append(
                "no pair was measured: of none is it predicted that one unit does less in place of "
                "the other; mechspex sweep --order 2 shows how all pairs act together"
            )
        if self.repaired:
            lines += ["", f"  {'ablated':{width + 2}} {'effect':26} without its backups"]
        for one in self.repaired[:_SHOWN]:
            share = "      " if np.isnan(one.share) else f"{one.share:5.0%} "
            loss, direct = (f"{effect:+.3f}" for effect in (one.loss, one.direct))
            backups = ", ".join(names[column] for column in one.by)
            lines.append(
                f"  {names[one.unit]:{width + 2}} {loss:26} {direct:26} {share} "
                f"repaired by {backups}"
            )
        if self.repairs:
            lines += ["", f"  {'ablated → backup':{2 * width + 3}}  backup before → after"]
        for repair in self.repairs[:_SHOWN]:
            pair = f"{names[repair.unit]} → {names[repair.by]}"
            after = f"{repair.after:+.3f}"
            lines.append(
                f"  {pair:{2 * width + 3}}  {repair.before.value:+.3f} → {after:26} "
                f"{repair.relation}{'' if repair.confirmed else '   not confirmed'}"
            )
        if len(self.repairs) > _SHOWN:
            lines.append(f"  … and {len(self.repairs) - _SHOWN:,} more")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, with a schema name; JSON can hold it."""
        names = self.units.names
        return {
            "schema": SCHEMA,
            "configuration": dict(self.configuration),
            "repairs": [plain(self._row(repair)) for repair in self.repairs],
            "repaired": [
                {
                    "unit": names[one.unit],
                    "by": [names[column] for column in one.by],
                    "loss": plain(asdict(one.loss)),
                    "direct": plain(asdict(one.direct)),
                    "share": plain(one.share),
                }
                for one in self.repaired
            ],
            "n_pairs": self.n_pairs,
            "level": self.level,
            "n_outputs": self.n_outputs,
            "masks": self.masks,
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the units, by column, and all intervals."""
        return self.to_dict() | {
            "units": self.units.to_list(),
            "directions": [
                {
                    "unit": repair.unit,
                    "by": repair.by,
                    "confirmed": repair.confirmed,
                    **{name: getattr(repair, name).to_list() for name in _EFFECTS},
                }
                for repair in self.repairs
            ],
            "backups": [
                {
                    "unit": one.unit,
                    "by": list(one.by),
                    "loss": one.loss.to_list(),
                    "direct": one.direct.to_list(),
                }
                for one in self.repaired
            ],
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> SelfRepair:
        units = UnitSet.from_list(record["units"])
        repairs = tuple(
            Repair(
                unit=read_whole(stored["unit"]),
                by=read_whole(stored["by"]),
                confirmed=bool(stored["confirmed"]),
                **{name: read_estimate(stored[name]) for name in _EFFECTS},
            )
            for stored in record["directions"]
        )
        repaired = tuple(
            Repaired(
                unit=read_whole(stored["unit"]),
                by=read_term(stored["by"]),
                loss=read_estimate(stored["loss"]),
                direct=read_estimate(stored["direct"]),
            )
            for stored in record["backups"]
        )
        units.label(column for one in repairs for column in (one.unit, one.by))
        units.label(column for one in repaired for column in (one.unit, *one.by))
        return cls(
            units=units,
            configuration=read_texts(record["configuration"]),
            repairs=repairs,
            repaired=repaired,
            n_pairs=read_whole(record["n_pairs"]),
            level=read_number(record["level"]),
            n_outputs=read_whole(record["n_outputs"]),
            masks=read_whole(record["masks"]),
        )

    def _row(self, repair: Repair) -> dict[str, Any]:
        return dict(
            zip(
                _COLUMNS,
                (
                    self.units.names[repair.unit],
                    self.units.names[repair.by],
                    repair.relation,
                    repair.loss.value,
                    repair.direct.value,
                    repair.before.value,
                    repair.after.value,
                    repair.after.low,
                    repair.after.high,
                    repair.interaction.value,
                    repair.interaction.low,
                    repair.interaction.high,
                    repair.share,
                    repair.confirmed,
                ),
                strict=True,
            )
        )


_EFFECTS = ("loss", "direct", "before", "after", "interaction")

_COLUMNS = ["ablated", "by", "relation", "effect", "effect without backup", "before", "after",
            "after low", "after high", "interaction", "low", "high", "share",
            "confirmed"]  # fmt: skip


def is_repair(loss: float, interaction: float) -> bool:
    """Whether |a_i| < |a_i + a_ij|."""
    return bool(abs(loss) < abs(loss + interaction))
