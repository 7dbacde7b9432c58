"""A certificate: what is sure of a circuit, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from mechspex.core.counted import counted
from mechspex.core.json_values import (
    plain,
    plain_rows,
    read_estimate,
    read_margin,
    read_number,
    read_term,
    read_texts,
    read_whole,
)
from mechspex.core.result import Result
from mechspex.core.statistics import Estimate
from mechspex.core.units import Term, UnitSet
from mechspex.runs.text import percent, subject

if TYPE_CHECKING:
    import matplotlib.figure

# Units outside the circuit that the text shows, and bars of the picture.
_SHOWN, _DRAWN = 12, 30


@dataclass(frozen=True)
class PromptGroup:
    """Prompts in which the members of a circuit do alike.

    Attributes:
        outputs: the prompts, by column.
        faithfulness: the share of the behaviour that the circuit carries on them.
        p_value: how likely such values are where the circuit is not the model's equal on them.
    """

    outputs: Term
    faithfulness: Estimate
    p_value: float


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Result):
    """What is sure of a circuit C on prompts that did not choose it; see `mechspex.certify`.

    Attributes:
        units: the units that it was chosen from.
        members: the columns of the circuit.
        configuration: what the values depend on.
        epsilon: the margin of equivalence, a share of the behaviour.
        delta: the smallest gain that counts, a share of the behaviour.
        level: the chance of each claim to be wrong, and the false discovery rate among members.
        faithfulness: the share of the behaviour that the circuit carries.
        equivalence: p of "C differs from the model by `epsilon` of the behaviour or more".
        idle: members whose part is not sure.
        missed: p of "a unit outside adds `delta` or more to the circuit".
        bound: what any unit outside adds, as a share of the behaviour, is below this with
            probability 1 − `level`; minus infinity where there is none.
        gains: what each unit adds to the circuit, as a share of the behaviour.
        inclusion: how often each unit adds `delta` or more where prompts are drawn again.
        groups: prompts grouped by what the members add on them.
        n_outputs: how many prompts all this is about.
        census: whether these are all prompts that there are: each p is 0 or 1, and no number has
            an interval.
        equivalent_within: the smallest `epsilon` with which the circuit would surely be the
            model's equal; infinite where there is none, or where it was not stored.
    """

    schema: ClassVar[str] = "mechspex.certificate/1"
    called: ClassVar[str] = "certificate"

    units: UnitSet
    members: Term
    configuration: Mapping[str, str]
    epsilon: float
    delta: float
    level: float
    faithfulness: Estimate
    equivalence: float
    idle: Term
    missed: float
    bound: float
    gains: np.ndarray
    inclusion: np.ndarray
    groups: tuple[PromptGroup, ...]
    n_outputs: int
    census: bool = False
    equivalent_within: float = np.inf

    @property
    def is_equivalent(self) -> bool:
        """Whether the circuit surely does what the model does, within `epsilon`."""
        return self.equivalence <= self.level

    @property
    def is_minimal(self) -> bool:
        """Whether every member is surely needed."""
        return not self.idle

    @property
    def is_complete(self) -> bool:
        """Whether surely no unit outside adds `delta` or more."""
        return self.missed <= self.level

    @property
    def holds(self) -> bool:
        """Whether the circuit is equivalent to the model, minimal and complete."""
        return self.is_equivalent and self.is_minimal and self.is_complete

    @property
    def serves_all_groups(self) -> bool:
        """Whether the circuit is equivalent to the model in every group of prompts."""
        return all(group.p_value <= self.level for group in self.groups)

    def to_pandas(self) -> pd.DataFrame:
        """One row a unit: ``unit``, whether it is a ``member``, what it ``adds`` as a share of the
        behaviour, and its probability of ``inclusion``; members first."""
        inside = np.isin(np.arange(len(self.units)), self.members)
        table = pd.DataFrame(
            {
                "unit": self.units.names,
                "member": inside,
                "adds": self.gains,
                "inclusion": self.inclusion,
            }
        )
        return table.iloc[np.lexsort((-self.gains, ~inside))].reset_index(drop=True)

    def plot(self) -> "matplotlib.figure.Figure":
        """How often each unit is included where prompts are drawn again; grey outside."""
        from mechspex.figures.bars import bars

        table = self.to_pandas().head(_DRAWN)
        return bars(
            table["unit"].tolist(),
            table["inclusion"].tolist(),
            sure=table["member"].tolist(),
            most=_DRAWN,
            quantity="probability of inclusion",
            heading=f"Certificate · {subject(self.configuration, self.units)}",
            note="grey: not in the circuit",
        )

    def to_dict(self) -> dict[str, Any]:
        """Claims, units and groups, with a schema name."""
        return {
            "schema": self.schema,
            "configuration": dict(self.configuration),
            "holds": self.holds,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "level": self.level,
            "n_outputs": self.n_outputs,
            "census": self.census,
            "faithfulness": self.faithfulness.to_list(),
            "equivalence": self.equivalence,
            "equivalent_within": plain(self.equivalent_within),
            "idle": [self.units.names[column] for column in self.idle],
            "missed": self.missed,
            "bound": plain(self.bound),
            "units": plain_rows(self.to_pandas()),
            "groups": [
                {
                    "outputs": list(group.outputs),
                    "faithfulness": group.faithfulness.to_list(),
                    "p_value": group.p_value,
                }
                for group in self.groups
            ],
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the units in the order of the columns."""
        return self.to_dict() | {
            "all_units": self.units.to_list(),
            "members": list(self.members),
            "gains": plain(self.gains),
            "inclusion": plain(self.inclusion),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Certificate:
        units = UnitSet.from_list(record["all_units"])
        gains, inclusion = (
            np.array([read_number(one) for one in record[name]]) for name in ("gains", "inclusion")
        )
        if not len(units) == len(gains) == len(inclusion):
            raise ValueError(f"{len(gains)} gains of {len(units)} units")
        numbers = ("epsilon", "delta", "level", "equivalence", "missed")
        bound = record["bound"]
        return cls(
            units=units,
            members=read_term(record["members"]),
            configuration=read_texts(record["configuration"]),
            faithfulness=read_estimate(record["faithfulness"]),
            idle=units.columns(record["idle"]),
            bound=-np.inf if bound is None else read_number(bound),
            gains=gains,
            inclusion=inclusion,
            groups=tuple(_group(stored) for stored in record["groups"]),
            n_outputs=read_whole(record["n_outputs"]),
            census=bool(record.get("census", False)),
            equivalent_within=read_margin(record.get("equivalent_within")),
            **{name: read_number(record[name]) for name in numbers},
        )

    @property
    def in_short(self) -> str:
        """Whether it holds, and which of its claims do."""
        claims = {
            "equivalent": self.is_equivalent,
            "no member superfluous": self.is_minimal,
            "nothing missed": self.is_complete,
        }
        said = ", ".join(f"{claim} {'✓' if sure else '–'}" for claim, sure in claims.items())
        return f"certificate {'holds' if self.holds else 'does not hold'}: {said}"

    def __str__(self) -> str:
        n_members = len(self.members)
        idle = ", ".join(self.units.names[column] for column in self.idle)
        needed = f"all {n_members} are" if self.is_minimal else f"not sure of {idle}"
        outside = len(self.units) - n_members
        prompts = counted(self.n_outputs, "prompt") + (", all there are" if self.census else "")
        rate = "" if self.census else f" (false discovery rate {self.level:g})"
        lines = [
            f"{self.in_short}; {prompts}",
            f"  {_mark(self.is_equivalent)} the model's equal within {self.epsilon:.0%} of the "
            f"behaviour: faithfulness {self._told(self.faithfulness)}{self._p(self.equivalence)}"
            f"{self._margin}",
            f"  {_mark(self.is_minimal)} every member is needed: {needed}{rate}",
            f"  {_mark(self.is_complete)} no unit outside adds {self.delta:.0%}: the most that "
            f"any of {outside} may add is {self.bound:.1%}{self._p(self.missed)}",
            self._groups,
            "",
            f"what each unit adds, and whether that is {self.delta:.0%}"
            if self.census
            else "how often a unit is included where prompts are drawn again",
            self._listed().to_string(index=False, float_format="{:.3f}".format),
        ]
        return "\n".join(lines)

    def _told(self, estimate: Estimate) -> str:
        """With its interval, if it has one."""
        return f"{estimate.value:.3f}" if self.census else str(estimate)

    def _p(self, p_value: float) -> str:
        return "" if self.census else f", p {p_value:.2g}"

    @property
    def _margin(self) -> str:
        """How far from the model it is, or surely not farther."""
        if not np.isfinite(self.equivalent_within):
            return ""
        return f"; {'' if self.census else 'sure '}within {percent(self.equivalent_within)}"

    @property
    def _groups(self) -> str:
        if len(self.groups) < 2:
            return "    the members do alike on all prompts"
        found = "; ".join(
            f"{counted(len(group.outputs), 'prompt')} {self._told(group.faithfulness)}"
            for group in self.groups
        )
        served = "one circuit serves both" if self.serves_all_groups else "not sure for each"
        return f"    prompts grouped by what members add: {found}: {served}"

    def _listed(self) -> pd.DataFrame:
        """All members, and the units outside that are ever included, of which it may lack some."""
        table = self.to_pandas()
        outside = table.loc[~table["member"] & (table["inclusion"] > 0)]
        return pd.concat([table.loc[table["member"]], outside.head(_SHOWN)])


def _mark(sure: bool) -> str:
    return "✓" if sure else "–"


def _group(stored: dict[str, Any]) -> PromptGroup:
    faithful = read_estimate(stored["faithfulness"])
    return PromptGroup(read_term(stored["outputs"]), faithful, read_number(stored["p_value"]))
