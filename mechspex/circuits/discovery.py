"""What the search for a circuit found: circuits of every size, and the small faithful one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from mechspex.circuits.certificate import Certificate
from mechspex.circuits.circuit import Circuit
from mechspex.circuits.curve import Curve
from mechspex.circuits.faithfulness import MIB_SHARES, Faithfulness
from mechspex.circuits.goal import Objective, as_objective
from mechspex.circuits.membership import Membership
from mechspex.circuits.score_table import ReferenceScores
from mechspex.core.checks import PATH
from mechspex.core.counted import counted
from mechspex.core.doors import door
from mechspex.core.json_values import plain, plain_rows, read_term, read_text, read_whole
from mechspex.core.units import Term
from mechspex.runs.cost import Cost
from mechspex.runs.result import RunResult
from mechspex.runs.text import subject
from mechspex.set_functions.set_function import SetFunction

if TYPE_CHECKING:
    import matplotlib.figure

    from mechspex.models.load_model import Model

_CURVES = ("best_curve", "matching_curve", "best_mib", "matching_mib")
# Of the circuits of every size, what the text shows.
_SHOWN = ["size", "predicted", "value", "faithfulness", "matching"]


@dataclass(frozen=True, eq=False, repr=False)
class Discovery(RunResult):
    """Circuits of every size, and the one that is small and faithful.

    Attributes:
        circuit: the smallest circuit that is faithful on the search's outputs, with its exact
            scores, links and roles on held-out outputs.
        function: the set function recovered from all masks of the search.
        best: {size: the units that do most by themselves}.
        matching: {size: the units that come nearest to the whole model}.
        faithfulness: the exact scores of `circuit`.
        front: one row a size, on the search's outputs: the predicted and the measured value of the
            best subset, its faithfulness, and as ``matching`` the faithfulness of the subset
            nearest to the whole model.
        masks: how many masks were measured to find and to score it; a gradient counts as a mask.
        best_curve, matching_curve: faithfulness of `best` and of `matching` on held-out outputs, at
            the sizes that were searched.
        best_mib, matching_mib: the same at the sizes of the MIB benchmark, whose areas are the CPR
            and the CMD; None where these sizes were not searched.
        references: scores of `circuit` under every reference; None where the value function is not
            of a model's components.
        remarks: why there are no roles or scores under references, where that is not plain.
        cost: what it all took.
        certificate: what is sure of `circuit`; None where it was not asked for.
        membership: how often each unit is in the circuit where the prompts of the search are drawn
            again and the choice among all subsets measured is made anew; None of a single prompt,
            or where the prompts are all that there are.
    """

    schema: ClassVar[str] = "mechspex.discovery/1"
    called: ClassVar[str] = "discovery of a circuit"
    file: ClassVar[str] = "discovery.json"
    made_by: ClassVar[str] = "mechspex circuit"

    circuit: Circuit
    function: SetFunction
    best: Mapping[int, Term]
    matching: Mapping[int, Term]
    faithfulness: Faithfulness
    front: pd.DataFrame
    masks: int
    best_curve: Curve | None = None
    matching_curve: Curve | None = None
    best_mib: Curve | None = None
    matching_mib: Curve | None = None
    references: ReferenceScores | None = None
    remarks: tuple[str, ...] = ()
    cost: Cost | None = None
    certificate: Certificate | None = None
    membership: Membership | None = None

    def to_pandas(self) -> pd.DataFrame:
        """One row a size: `front`, and both faithfulnesses on fresh outputs with intervals."""
        table = self.front
        for curve, prefix in (
            (self.best_curve, "fresh "),
            (self.matching_curve, "fresh matching "),
        ):
            if curve is not None:
                columns = curve.to_pandas()[["faithfulness", "low", "high"]]
                table = table.join(columns.add_prefix(prefix))
        return table

    def plot(self) -> "matplotlib.figure.Figure":
        """Faithfulness on fresh outputs against size, with the circuit and its random controls."""
        from mechspex.figures.sizes import faithfulness_by_size

        curves = {"best of its size": self.best_curve, "nearest to the model": self.matching_curve}
        size = len(self.circuit)
        told = subject(self.circuit.configuration, self.circuit.units)
        return faithfulness_by_size(
            {name: curve for name, curve in curves.items() if curve is not None},
            controls={size: self.faithfulness.random.tolist()},
            chosen=(size, self.faithfulness.faithfulness),
            heading=f"Circuits of every size · {told}",
        )

    @door(folder=PATH, objective=as_objective)
    def to_mib(
        self, folder: str | Path, model: Model | str | Path, objective: Objective = "match"
    ) -> None:
        """Write a circuit for each of the nine sizes of the MIB benchmark below the whole model.

        Each has no more units than its share, which its file is called by (``0.05.json``); of few
        units the smallest are empty.

        Args:
            folder: made if it is not there.
            model: the model that the circuits were found in.
            objective: ``match`` for the subsets nearest to the model, ``best`` for the best.

        Raises:
            Refused: units that are no whole heads or MLPs of the model, or another objective.
        """
        sets = {0: ()} | dict(self.matching if objective == "match" else self.best)
        units = self.circuit.units
        Path(folder).mkdir(parents=True, exist_ok=True)
        for share in MIB_SHARES[:-1]:
            size = max(size for size in sets if size <= share * len(units))
            Circuit(units, sets[size]).to_mib(Path(folder) / f"{share:g}.json", model)

    @property
    def in_short(self) -> str:
        """The circuit in short."""
        return self.circuit.in_short

    def _tables(self) -> list[pd.DataFrame]:
        scores = [] if self.references is None else [self.references.to_pandas()]
        return [self.circuit.to_pandas(), self.circuit.links_to_pandas(), self.to_pandas(), *scores]

    def __str__(self) -> str:
        lines = [f"{self.circuit}\n\n{self.faithfulness}\n{self.masks:,} masks", *self.remarks]
        if self.membership is not None:
            lines += ["", str(self.membership)]
        # Where the prompts are all that there are, none are fresh.
        census = self.certificate is not None and self.certificate.census
        others, ones = ("all", "all there are") if census else ("fresh", "fresh ones")
        if self.best_curve is not None and self.matching_curve is not None:
            front = self.front.filter(_SHOWN)
            front.insert(4, others, [str(score) for score in self.best_curve.scores])
            front[f"{others} matching"] = [str(score) for score in self.matching_curve.scores]
            lines += [
                "",
                f"best subset of each size: on the prompts of the search, and on {ones}; "
                "matching: faithfulness of the subset nearest to the whole model",
                front.to_string(index=False, float_format="{:.3f}".format),
            ]
        if self.best_mib is not None and self.matching_mib is not None:
            lines.append(
                f"CPR {self.best_mib.cpr} of these   CMD {self.matching_mib.cmd} of the subsets "
                "that come nearest to the whole model"
            )
        if self.references is not None:
            lines += [
                "",
                "the circuit under each reference, "
                f"{counted(self.references.n_prompts, 'prompt' if census else 'fresh prompt')}",
                str(self.references),
            ]
        if self.certificate is not None:
            lines += ["", str(self.certificate)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The circuit, its rivals of every size and its scores, as plain numbers and lists."""
        references, certificate = self.references, self.certificate
        return {
            "schema": self.schema,
            "circuit": plain(self.circuit.to_dict()),
            "front": plain_rows(self.to_pandas()),
            "cpr": None if self.best_mib is None else self.best_mib.cpr.to_list(),
            "cmd": None if self.matching_mib is None else self.matching_mib.cmd.to_list(),
            "references": None if references is None else plain(references.to_dict()),
            "certificate": None if certificate is None else plain(certificate.to_dict()),
            "membership": None if self.membership is None else self.membership.to_dict(),
            "masks": self.masks,
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the recovered function, the members of every size, and the curves."""
        curves, certificate = {name: getattr(self, name) for name in _CURVES}, self.certificate
        return self.to_dict() | {
            "circuit": plain(self.circuit.to_record()),
            "function": self.function.to_dict(),
            "best": {str(size): list(members) for size, members in self.best.items()},
            "matching": {str(size): list(members) for size, members in self.matching.items()},
            "faithfulness": plain(self.faithfulness.to_record()),
            "table": plain(self.front.to_dict("list")),
            "curves": {n: None if c is None else plain(c.to_dict()) for n, c in curves.items()},
            "certificate": None if certificate is None else plain(certificate.to_record()),
            "remarks": list(self.remarks),
            "cost": None if self.cost is None else asdict(self.cost),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Discovery:
        curves, references, cost = record["curves"], record["references"], record["cost"]
        certificate = record.get("certificate")
        front = pd.DataFrame(record["table"])
        if not {*_SHOWN, "units", "matching units"} <= set(front.columns):
            raise ValueError(f"a table of {list(front.columns)}")
        circuit, chosen = Circuit.from_dict(record["circuit"]), record.get("membership")
        if chosen is not None:
            chosen = Membership.from_dict(chosen, circuit.units, circuit.members)
        return cls(
            circuit=circuit,
            membership=chosen,
            function=SetFunction.from_dict(record["function"]),
            best=_by_size(record["best"]),
            matching=_by_size(record["matching"]),
            faithfulness=Faithfulness.from_dict(record["faithfulness"]),
            front=front,
            masks=read_whole(record["masks"]),
            references=None if references is None else ReferenceScores.from_dict(references),
            remarks=tuple(read_text(remark) for remark in record["remarks"]),
            cost=None if cost is None else Cost.from_dict(cost),
            certificate=None if certificate is None else Certificate.from_dict(certificate),
            **{
                name: None if curves[name] is None else Curve.from_dict(curves[name])
                for name in _CURVES
            },
        )


def _by_size(stored: dict[str, list[int]]) -> dict[int, Term]:
    return {int(size): read_term(members) for size, members in stored.items()}
