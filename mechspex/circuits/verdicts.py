"""What an audit says: a verdict on every member of a circuit, and on units that it may lack."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.faithfulness import Faithfulness
from mechspex.circuits.gains import Gains
from mechspex.circuits.member_pair import Relation
from mechspex.core.counted import counted
from mechspex.core.json_values import plain, plain_rows, read_number
from mechspex.runs.result import RunResult
from mechspex.runs.run import VERDICTS
from mechspex.runs.text import equivalence_in_words, metric_in_words, subject

if TYPE_CHECKING:
    import matplotlib.figure

Verdict = Literal["needed", "backed up", "works against", "not shown", "missing", "left out"]

# What the relations of two members are as a gate.
_GATES: dict[Relation, str] = {"together": "AND", "backup": "OR", "opposed": "opposed"}
# Units outside the circuit that the text shows, and pairs; bars of the picture.
_SHOWN, _DRAWN = 12, 30


@dataclass(frozen=True, eq=False, repr=False)
class Verdicts(RunResult):
    """A circuit that was tested exactly, member by member; see `mechspex.audit`.

    Attributes:
        circuit: the circuit, its `links` the confirmed pairs of members.
        scores: what it carries by itself, and what all others do.
        gains: what each member and each tested unit outside adds to it, prompt by prompt.
        level: the false discovery rate, among all units and among the pairs.
    """

    schema: ClassVar[str] = "mechspex.verdicts/1"
    called: ClassVar[str] = "audit of a circuit"
    file: ClassVar[str] = VERDICTS
    made_by: ClassVar[str] = "mechspex audit"

    circuit: Circuit
    scores: Faithfulness
    gains: Gains
    level: float

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """{unit: its verdict}.

        Of members: ``needed``, the circuit surely does less without it; ``backed up``, that is not
        sure, and a confirmed pair says that another member stands in for it; ``works against``, it
        surely does more; ``not shown``. Of other units: ``missing``, it surely does more with it;
        ``works against``; ``left out``, neither is sure.
        """
        side = np.sign(self.scores.clean - self.scores.ablated)
        inside = set(self.circuit.members)
        found: dict[str, Verdict] = {}
        rows = zip(self.gains.columns, self.gains.means, self.gains.sure, strict=True)
        for column, gain, sure in rows:
            name = self.circuit.units.names[column]
            if sure and gain * side < 0:
                found[name] = "works against"
            elif column in inside:
                backed = column in self._backed_up
                found[name] = "needed" if sure else "backed up" if backed else "not shown"
            else:
                found[name] = "missing" if sure else "left out"
        return found

    @property
    def needed(self) -> tuple[str, ...]:
        """The members that are needed."""
        return self._with("needed")

    @property
    def missing(self) -> tuple[str, ...]:
        """The units that the circuit lacks."""
        return self._with("missing")

    @property
    def gates(self) -> dict[tuple[str, str], str]:
        """{two members: ``AND``, each needs the other; ``OR``, each stands in for the other;
        ``opposed``}, strongest first."""
        names = self.circuit.units.names
        return {
            (names[link.members[0]], names[link.members[1]]): _GATES[link.relation]
            for link in self.circuit.links
        }

    def to_pandas(self) -> pd.DataFrame:
        """One row a unit: ``unit``, whether it is a ``member``, what it ``adds`` with the ends of
        its interval, and its ``verdict``; members first, then by what they add."""
        inside = set(self.circuit.members)
        verdicts = self.verdicts
        names = [self.circuit.units.names[column] for column in self.gains.columns]
        table = pd.DataFrame(
            {
                "unit": names,
                "member": [column in inside for column in self.gains.columns],
                "adds": self.gains.means,
                "low": self.gains.intervals[:, 0],
                "high": self.gains.intervals[:, 1],
                "verdict": [verdicts[name] for name in names],
            }
        )
        order = np.lexsort((-np.abs(self.gains.means), ~table["member"].to_numpy(dtype=bool)))
        return table.iloc[order].reset_index(drop=True)

    def plot(self) -> "matplotlib.figure.Figure":
        """What each unit adds to the circuit with its interval, grey where that is not sure."""
        from mechspex.figures.bars import bars
        from mechspex.figures.style import measured

        table = self.to_pandas().head(_DRAWN)
        members = zip(table["unit"], table["member"], strict=True)
        intervals = table[["low", "high"]].to_numpy()
        return bars(
            [f"{name} ({'in' if inside else 'out'})" for name, inside in members],
            table["adds"].tolist(),
            intervals=intervals,
            sure=((intervals[:, 0] > 0) | (intervals[:, 1] < 0)).tolist(),
            most=_DRAWN,
            quantity=f"what the unit adds to the {measured(self.circuit, None)}",
            heading=f"Audit · {self._subject}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Verdicts, gates and scores, with a schema name."""
        return {
            "schema": self.schema,
            "configuration": dict(self.circuit.configuration),
            "method": self.circuit.method,
            "faithfulness": self.scores.faithfulness.to_list(),
            "completeness": self.scores.completeness.to_list(),
            "equivalent_within": plain(self.scores.equivalent_within),
            "units": plain_rows(self.to_pandas()),
            "pairs": [
                {"units": list(pair), "gate": gate, "effect": link.effect}
                for (pair, gate), link in zip(self.gates.items(), self.circuit.links, strict=True)
            ],
            "level": self.level,
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the circuit and what units add prompt by prompt."""
        return self.to_dict() | {
            "circuit": plain(self.circuit.to_record()),
            "scores": plain(self.scores.to_record()),
            "gains": self.gains.to_dict(),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Verdicts:
        found = Gains.from_dict(record["gains"])
        circuit = Circuit.from_dict(record["circuit"])
        circuit.units.label(found.columns)
        scores = Faithfulness.from_dict(record["scores"])
        return cls(circuit, scores, found, read_number(record["level"]))

    @property
    def in_short(self) -> str:
        """How faithful the circuit is, and how many members have which verdict."""
        named = set(self.circuit.names)
        counts = Counter(verdict for name, verdict in self.verdicts.items() if name in named)
        said = ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
        return (
            f"{self._subject}: faithfulness {self.scores.faithfulness.value:.3f}; "
            f"{counted(len(self.circuit), 'member')}: {said}; {len(self.missing)} missing"
        )

    def __str__(self) -> str:
        table = self.to_pandas()
        inside, outside = table.query("member"), table.query("not member")
        n_prompts = counted(self.scores.n_outputs, "prompt")
        metric = metric_in_words(self.circuit.configuration)
        lines = [
            self._subject,
            f"circuit of {len(self.circuit)} of {len(self.circuit.units)} units"
            + (f" ({self.circuit.method})" if self.circuit.method else ""),
            f"faithfulness {self.scores.faithfulness}, the others alone "
            f"{self.scores.completeness}; {n_prompts}",
            equivalence_in_words(self.scores.equivalent_within),
            "",
            f"members: what the circuit loses of the {metric} without each",
            _text(inside),
        ]
        if len(outside):
            sure = outside.loc[outside["verdict"] != "left out"]
            shown = sure if len(sure) >= _SHOWN else outside.head(_SHOWN)
            lines += [
                "",
                f"outside: what the circuit gains with each ({len(outside)} of "
                f"{len(self.circuit.units) - len(self.circuit)} tested, {len(sure)} sure)",
                _text(shown),
            ]
        if self.circuit.links:
            lines += ["", "pairs of members, ablated together in the whole model"]
            pairs = zip(self.gates.items(), self.circuit.links, strict=True)
            shown_pairs = list(pairs)[:_SHOWN]
            lines += [
                f"  {' × '.join(pair)}: {gate} ({link.joint:+.3f})"
                for (pair, gate), link in shown_pairs
            ]
            if len(self.circuit.links) > _SHOWN:
                lines.append(f"  … and {len(self.circuit.links) - _SHOWN} weaker ones")
        about = f"false discovery rate {self.level:g} among {self.gains.n_tests:,} units"
        return "\n".join([*lines, "", f"intervals over {n_prompts}; {about}"])

    def _with(self, verdict: Verdict) -> tuple[str, ...]:
        return tuple(name for name, found in self.verdicts.items() if found == verdict)

    @property
    def _backed_up(self) -> set[int]:
        links = [link.members for link in self.circuit.links if link.relation == "backup"]
        return {column for pair in links for column in pair}

    @property
    def _subject(self) -> str:
        return subject(self.circuit.configuration, self.circuit.units)


def _text(table: pd.DataFrame) -> str:
    shown = table.drop(columns="member")
    return shown.to_string(index=False, float_format="{:+.3f}".format)
