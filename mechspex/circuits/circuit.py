"""A circuit: the few units that carry a behaviour, and how they act together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import networkx as nx
import numpy as np
import pandas as pd
from jaxtyping import Bool

from mechspex.circuits.member_pair import MemberPair, Relation, relation_of
from mechspex.core.checks import PATH, WHOLE, Only, Several, as_number
from mechspex.core.counted import counted
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.json_values import (
    read_estimate,
    read_margin,
    read_number,
    read_text,
    read_texts,
    read_whole,
)
from mechspex.core.masks import keep_only
from mechspex.core.statistics import Estimate
from mechspex.core.units import Term, UnitSet, check_same_units
from mechspex.effects.validation import Validation
from mechspex.runs.result import RunResult
from mechspex.runs.run import CIRCUIT
from mechspex.runs.text import equivalence_in_words, subject

if TYPE_CHECKING:
    import matplotlib.figure

    from mechspex.components.component_values import ComponentValues
    from mechspex.components.masked_model import MaskedModel
    from mechspex.models.load_model import Model

SCHEMA = "mechspex.circuit/1"
# Rows that the text shows.
_SHOWN = 12


@dataclass(frozen=True, eq=False, repr=False)
class Circuit(RunResult):
    """A set of units that carries a behaviour.

    Attributes:
        units: all units that the circuit was chosen from.
        members: the columns of the chosen units, ascending.
        configuration: model, task, ablation and metric of the values it was found with.
        method: how it was found, in words.
        predicted: the value of the circuit alone that the recovered function predicts; None where
            nothing predicts it.
        scores: the scores of `mechspex.faithfulness` as plain numbers; empty if not measured.
        effects: {column: exact effect of ablating that member in the whole model}.
        links: the confirmed pairs of members.
        roles: {role: columns}, published or proposed from attention patterns.
        evidence: {column: why it has its role}.
        objective: what it was to be: ``match`` the whole model, or the ``best`` of its size; None
            where it was not searched for.
        n_searched: masks of the search; None likewise.
    """

    schema: ClassVar[str] = SCHEMA
    called: ClassVar[str] = "circuit"
    file: ClassVar[str] = CIRCUIT
    made_by: ClassVar[str] = "mechspex circuit"

    units: UnitSet
    members: Term
    configuration: Mapping[str, str] = field(default_factory=dict)
    method: str = ""
    predicted: float | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    effects: Mapping[int, float] = field(default_factory=dict)
    links: tuple[MemberPair, ...] = ()
    roles: Mapping[str, Term] = field(default_factory=dict)
    evidence: Mapping[int, str] = field(default_factory=dict)
    objective: str | None = None
    n_searched: int | None = None

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise Refused(f"members {list(self.members)} must ascend, each once")
        if self.members and not 0 <= self.members[0] <= self.members[-1] < len(self.units):
            raise Refused(
                f"members {list(self.members)} lie outside the columns 0 … {len(self.units) - 1}"
            )

    def __len__(self) -> int:
        return len(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """The members by name."""
        return tuple(self.units.names[column] for column in self.members)

    @property
    def mask(self) -> Bool[np.ndarray, " unit"]:
        """The mask that keeps the circuit alone."""
        return keep_only(len(self.units), [self.members])[0]

    @classmethod
    def published(cls, roles: Mapping[str, Sequence[str]], units: UnitSet) -> Circuit:
        """The circuit that a task file holds.

        Args:
            roles: {role: names of units}.
            units: all units of the model.

        Raises:
            UnknownUnitError: a name that `units` lack.
        """
        columns = {role: tuple(sorted(units.columns(names))) for role, names in roles.items()}
        members = tuple(sorted({column for role in columns.values() for column in role}))
        return cls(units, members, method="published", roles=columns)

    def groups(self, relation: Relation) -> tuple[Term, ...]:
        """Members that links of one relation join, directly or through others; largest first.

        Args:
            relation: ``together``, ``backup`` or ``opposed``.
        """
        graph = nx.Graph()
        graph.add_edges_from(link.members for link in self.links if link.relation == relation)
        groups = [tuple(sorted(group)) for group in nx.connected_components(graph)]
        return tuple(sorted(groups, key=lambda group: (-len(group), group)))

    def with_links(self, validation: Validation) -> Circuit:
        """The same circuit with the effects and links of its members.

        Args:
            validation: exact effects of single members and of pairs of them, over the same units.
        """
        held = zip(
            validation.terms,
            validation.effects.tolist(),
            validation.intervals.tolist(),
            validation.confirmed.tolist(),
            strict=True,
        )
        rows = {term: (Estimate(e, *ends), sure) for term, e, ends, sure in held}
        alone = {c: rows[(c,)] for c in self.members if (c,) in rows}
        effects = {column: effect.value for column, (effect, _) in alone.items()}
        links = []
        for term, (joint, sure) in rows.items():
            if sure and len(term) == 2 and all(column in alone for column in term):
                i, j = term
                one, other = (alone[column][0].value * alone[column][1] for column in (i, j))
                links.append(MemberPair((i, j), joint, relation_of(one, other, joint.value)))
        links.sort(key=lambda link: -abs(link.effect))
        return replace(self, effects=effects, links=tuple(links))

    def with_roles(self, roles: pd.DataFrame) -> Circuit:
        """The same with the roles that attention patterns propose.

        Args:
            roles: a row a unit with ``unit``, ``role`` (empty for none) and ``evidence``, as
                `mechspex.head_roles` gives them; units outside the circuit are left out.

        Raises:
            UnknownUnitError: a unit that is not among these.
        """
        columns = self.units.columns(roles["unit"])
        members: dict[str, list[int]] = {}
        evidence = {}
        for column, role, why in zip(columns, roles["role"], roles["evidence"], strict=True):
            if role and column in self.members:
                members.setdefault(role, []).append(column)
                evidence[column] = why
        named = {role: tuple(sorted(columns)) for role, columns in members.items()}
        return replace(self, roles=named, evidence=evidence)

    def to_pandas(self) -> pd.DataFrame:
        """One row a member: unit, effect of ablating it, what it adds to the circuit, its role."""
        role_of = {column: role for role, columns in self.roles.items() for column in columns}
        adds = dict(zip(self.scores.get("members", []), self.scores.get("minimality", []),
                        strict=True))  # fmt: skip
        return pd.DataFrame(
            {
                "unit": self.names,
                "effect": [self.effects.get(column, np.nan) for column in self.members],
                "adds": [adds.get(name, [np.nan])[0] for name in self.names],
                "role": [role_of.get(column, "") for column in self.members],
                "evidence": [self.evidence.get(column, "") for column in self.members],
            }
        )

    def links_to_pandas(self) -> pd.DataFrame:
        """One row a confirmed pair, strongest first."""
        return pd.DataFrame(
            {
                "units": [self.units.label(link.members) for link in self.links],
                "effect": [link.effect for link in self.links],
                "low": [link.interval[0] for link in self.links],
                "high": [link.interval[1] for link in self.links],
                "relation": [link.relation for link in self.links],
            }
        )

    def plot(self, metric: str | None = None) -> "matplotlib.figure.Figure":
        """The members by layer, joined where a pair is confirmed, with their roles.

        Args:
            metric: what is measured, in words; the value's metric if not given.
        """
        from mechspex.figures.circuit import circuit_graph

        return circuit_graph(self, metric=metric)

    def model(self, values: ComponentValues) -> MaskedModel:
        """The model under the circuit, all other units ablated: to generate with, hook in or save.

        Args:
            values: the model with these units, ablated by ``zero`` or ``position_mean``.

        Raises:
            Refused: other units than the circuit was chosen from.
            AblationError: references that texts of another length do not have.
        """
        check_same_units("values", values.units, "the circuit", self.units)
        return values.masked_model(set(range(len(self.units))) - set(self.members))

    def to_graph(self) -> nx.Graph:
        """Members as nodes, confirmed pairs as edges, with attributes that GraphML holds."""
        graph = nx.Graph(method=self.method)
        for row in self.to_pandas().to_dict("records"):
            attributes = {key: value for key, value in row.items() if value == value}
            graph.add_node(attributes.pop("unit"), **attributes)
        for link in self.links:
            one, other = (self.units.names[column] for column in link.members)
            graph.add_edge(one, other, effect=link.effect, relation=link.relation)
        return graph

    def to_graphml(self, path: str | Path) -> None:
        """Write the graph for Gephi, Cytoscape or networkx.

        Args:
            path: the file to write.
        """
        nx.write_graphml(self.to_graph(), path)

    @door(path=PATH, importance=Several(as_number, "a number a unit"))
    def to_mib(
        self, path: str | Path, model: Model | str | Path, importance: Sequence[float] | None = None
    ) -> None:
        """Write JSON that the MIB benchmark's ``Graph.from_json`` reads, edges between nodes in it.

        Heads and MLPs that are none of `units` are in the graph, without a score: they are kept.

        Args:
            path: the file to write.
            model: the model that the circuit was found in.
            importance: a score a unit, to rank by; 1 for members and 0 for others if not given.

        Raises:
            Refused: units that are no whole heads or MLPs of the model, or scores that are none.
        """
        from mechspex.circuits.mib import write_mib

        write_mib(self, Path(path), model, importance)

    @classmethod
    @door(path=PATH, units=Only((UnitSet,), "units, such as heads(model)"), size=WHOLE)
    def from_mib(
        cls,
        path: str | Path,
        units: UnitSet | None = None,
        *,
        size: int | None = None,
        absolute: bool = True,
    ) -> Circuit:
        """The nodes of a circuit in the MIB benchmark's JSON.

        Args:
            path: the file, as `to_mib` or the benchmark's ``Graph.to_json`` writes it.
            units: what it was chosen from; all heads and MLPs if not given. Others are to be in it.
            size: so many nodes with the best scores, and all without one, not those in the graph.
            absolute: rank by the size of a score, not by the score.

        Raises:
            Refused: no circuit, too few scores, or a node left out that is no unit.
            UnknownUnitError: a unit that the file's model lacks.
        """
        from mechspex.circuits.mib import circuit_of_mib

        return circuit_of_mib(Path(path), units, size, absolute)

    def to_dict(self) -> dict[str, Any]:
        """The circuit as plain numbers and lists, with a schema name; JSON can hold it."""
        name = self.units.names
        return {
            "schema": SCHEMA,
            "units": self.units.to_list(),
            "members": list(self.names),
            "configuration": dict(self.configuration),
            "method": self.method,
            "predicted": self.predicted,
            "scores": dict(self.scores),
            "effects": {name[column]: effect for column, effect in self.effects.items()},
            "links": [
                {
                    "members": [name[column] for column in link.members],
                    "effect": link.effect,
                    "interval": list(link.interval),
                    "relation": link.relation,
                }
                for link in self.links
            ],
            "roles": {role: [name[c] for c in columns] for role, columns in self.roles.items()},
            "evidence": {name[column]: text for column, text in self.evidence.items()},
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` and what `method` says in words."""
        return self.to_dict() | {"objective": self.objective, "n_searched": self.n_searched}

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Circuit:
        units = UnitSet.from_list(record["units"])
        column = units.column_of
        predicted, n_searched = record["predicted"], record.get("n_searched")
        return cls(
            units=units,
            members=tuple(sorted(units.columns(record["members"]))),
            configuration=read_texts(record["configuration"]),
            method=read_text(record["method"]),
            predicted=None if predicted is None else read_number(predicted),
            scores=_checked_scores(record["scores"]),
            effects={column[name]: read_number(e) for name, e in record["effects"].items()},
            links=tuple(_link(stored, column) for stored in record["links"]),
            roles={
                read_text(role): tuple(column[name] for name in names)
                for role, names in record["roles"].items()
            },
            evidence={column[name]: read_text(why) for name, why in record["evidence"].items()},
            objective=record.get("objective"),
            n_searched=None if n_searched is None else read_whole(n_searched),
        )

    @property
    def in_short(self) -> str:
        """What was asked, how many units of how many, and how faithful they are."""
        lines = [subject(self.configuration, self.units)] if self.configuration else []
        lines.append(f"circuit of {len(self)} of {len(self.units)} units ({self.method})")
        if self.scores:
            lines.append(f"faithfulness {self.scores['faithfulness'][0]:.3f}")
        return "; ".join(lines)

    def _tables(self) -> list[pd.DataFrame]:
        return [self._known(), self.links_to_pandas()]

    def _known(self) -> pd.DataFrame:
        """The table of members without the columns of which nothing is known, as after a file."""
        table = self.to_pandas()
        empty = [name for name in table if not any(x == x and x != "" for x in table[name])]
        return table.drop(columns=empty)

    def __str__(self) -> str:
        lines = [subject(self.configuration, self.units)] if self.configuration else []
        lines.append(f"circuit of {len(self)} of {len(self.units)} units ({self.method})")
        if self.scores:
            share, rest = self.scores["faithfulness"], self.scores["completeness"]
            drawn = self.scores["random"]
            beside = f"; random circuits {np.mean(drawn):.3f}" if drawn else ""
            lines.append(
                f"faithfulness {share[0]:.3f} [{share[1]:.3f}, {share[2]:.3f}], the others alone "
                f"{rest[0]:.3f} [{rest[1]:.3f}, {rest[2]:.3f}]{beside}; "
                f"{counted(self.scores['n_outputs'], 'prompt')}"
            )
            if self.scores.get("equivalent_within") is not None:
                lines.append(equivalence_in_words(self.scores["equivalent_within"]))
        if self.members:
            lines += ["", self._known().to_string(index=False, float_format="{:+.3f}".format)]
        if self.links:
            pairs = self.links_to_pandas()
            lines += [
                "",
                f"{counted(len(pairs), 'pair')} of units that act together, back each other up "
                "or oppose each other:",
                pairs.head(_SHOWN).to_string(index=False, float_format="{:+.3f}".format),
            ]
            if len(pairs) > _SHOWN:
                lines.append(f"… and {len(pairs) - _SHOWN} weaker ones")
        return "\n".join(lines)


def _checked_scores(stored: dict[str, Any]) -> dict[str, Any]:
    """Stored scores of a circuit, none or all that its text needs."""
    if stored:
        for name in ("faithfulness", "completeness"):
            read_estimate(stored[name])
        for number in stored["random"]:
            read_number(number)
        for score in stored["minimality"]:
            read_estimate(score)
        read_whole(stored["n_outputs"])
        read_margin(stored.get("equivalent_within"))
        if len(stored["members"]) != len(stored["minimality"]):
            raise ValueError("minimality of other members")
    return dict(stored)


def _link(stored: dict[str, Any], column: Mapping[str, int]) -> MemberPair:
    one, other = stored["members"]
    if stored["relation"] not in get_args(Relation):
        raise ValueError(f"relation {stored['relation']!r}")
    joint = read_estimate([stored["effect"], *stored["interval"]])
    return MemberPair((column[one], column[other]), joint, stored["relation"])
