"""What a circuit does by itself on the real model: faithfulness, completeness, minimality."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.curve import Curve, scorer
from mechspex.core.checks import SEED, Several, Whole, as_number
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.finite import finite_values
from mechspex.core.json_values import (
    plain,
    read_array,
    read_estimate,
    read_margin,
    read_number,
    read_texts,
    read_whole,
)
from mechspex.core.masks import keep_only
from mechspex.core.result import Result
from mechspex.core.statistics import Estimate, equivalence_margin
from mechspex.core.terms import as_chosen, as_ranking, columns_of
from mechspex.core.units import UnitSet
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.runs.text import equivalence_in_words, subject

if TYPE_CHECKING:
    import matplotlib.figure

# Shares of the units at which the MIB benchmark measures circuits (Mueller et al. 2025).
MIB_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness(Result):
    """How much of the behaviour a circuit C carries.

    The behaviour is f(all) − f(∅), mean over outputs, where f(S) keeps S and ablates the rest. The
    scores are shares of it.

    Attributes:
        units: the units of the value function.
        members: the columns of the circuit.
        configuration: model, task, ablation and metric of the values.
        clean, ablated: f(all) and f(∅), mean over outputs.
        n_outputs: how many outputs (prompts) the intervals are about.
        faithfulness: (f(C) − f(∅)) / (f(all) − f(∅)).
        completeness: the faithfulness of all units but C; near 0 where nothing outside C carries
            the behaviour.
        minimality: how much each member i adds: (f(C) − f(C without i)) / (f(all) − f(∅)).
        random: the faithfulness of random circuits of the same size, the control.
        correct, clean_correct: the share of outputs above 0 with C alone, and with all units. That
            is the accuracy if the metric is a difference between right and wrong.
        equivalent_within: the smallest share ε of the behaviour for which |f(C) − f(all)| surely
            lies below ε (f(all) − f(∅)), by two one-sided t tests at .05 (Schuirmann 1987); so C
            is equivalent to the model within any larger ε, which `mechspex.certify` tests.
            Infinite where no ε is: of one output, or where the behaviour is not surely there; and
            where none was stored.
    """

    schema: ClassVar[str] = "mechspex.faithfulness/1"
    called: ClassVar[str] = "faithfulness"

    units: UnitSet
    members: tuple[int, ...]
    configuration: Mapping[str, str]
    clean: float
    ablated: float
    n_outputs: int
    faithfulness: Estimate
    completeness: Estimate
    minimality: tuple[Estimate, ...]
    random: Float[np.ndarray, " circuit"]
    correct: float
    clean_correct: float
    equivalent_within: float = math.inf

    @property
    def idle(self) -> tuple[int, ...]:
        """Members that may add nothing: the interval of what they add holds zero."""
        scores = zip(self.members, self.minimality, strict=True)
        return tuple(column for column, score in scores if not score.leaves_out_zero)

    def to_pandas(self) -> pd.DataFrame:
        """One row a member, what it adds with its interval, most first."""
        frame = pd.DataFrame(
            {
                "unit": [self.units.names[column] for column in self.members],
                "adds": [score.value for score in self.minimality],
                "low": [score.low for score in self.minimality],
                "high": [score.high for score in self.minimality],
            }
        )
        return frame.sort_values("adds", ascending=False, ignore_index=True, kind="stable")

    def plot(self) -> "matplotlib.figure.Figure":
        """What each member adds, with its interval over outputs; grey where that may be nothing."""
        from mechspex.figures.bars import bars

        frame = self.to_pandas()
        intervals = frame[["low", "high"]].to_numpy()
        told = subject(self.configuration, self.units)
        return bars(
            frame["unit"].tolist(),
            frame["adds"].to_numpy(),
            intervals=intervals,
            sure=(intervals[:, 0] > 0) | (intervals[:, 1] < 0),
            quantity="what the member adds (share of the behaviour)",
            heading=f"Circuit of {len(self.members)} of {len(self.units)} units · {told}",
            note=f"faithfulness {self.faithfulness}, random circuits "
            f"{np.mean(self.random) if len(self.random) else np.nan:.2f}; grey: the interval "
            "holds zero",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "members": [self.units.names[column] for column in self.members],
            "configuration": dict(self.configuration),
            "clean": self.clean,
            "ablated": self.ablated,
            "n_outputs": self.n_outputs,
            "faithfulness": self.faithfulness.to_list(),
            "completeness": self.completeness.to_list(),
            "minimality": [score.to_list() for score in self.minimality],
            "random": self.random.tolist(),
            "correct": self.correct,
            "clean_correct": self.clean_correct,
            "equivalent_within": plain(self.equivalent_within),
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` with the units."""
        return super().to_record() | {"units": self.units.to_list()}

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Faithfulness:
        units = UnitSet.from_list(record["units"])
        numbers = ("clean", "ablated", "correct", "clean_correct")
        members = units.columns(record["members"])
        minimality = tuple(read_estimate(score) for score in record["minimality"])
        if len(minimality) != len(members):
            raise ValueError(f"{len(minimality)} scores of {len(members)} members")
        return cls(
            units=units,
            members=members,
            configuration=read_texts(record["configuration"]),
            n_outputs=read_whole(record["n_outputs"]),
            faithfulness=read_estimate(record["faithfulness"]),
            completeness=read_estimate(record["completeness"]),
            minimality=minimality,
            random=read_array(record["random"], "circuit"),
            equivalent_within=read_margin(record.get("equivalent_within")),
            **{name: read_number(record[name]) for name in numbers},
        )

    @property
    def in_short(self) -> str:
        """How many units of how many, on how many outputs, and how faithful they are."""
        return (
            f"{len(self.members)} of {len(self.units)} units, {self.n_outputs} prompts; "
            f"faithfulness {self.faithfulness}"
        )

    def __str__(self) -> str:
        control = (
            f"{len(self.random)} random circuits of the same size: mean {self.random.mean():.3f}, "
            f"best {self.random.max():.3f}"
            if len(self.random)
            else "no random circuits"
        )
        n = len(self.members)
        return "\n".join(
            [
                f"{n} of {len(self.units)} units, {self.n_outputs} prompts; "
                f"clean {self.clean:+.3f}, all ablated {self.ablated:+.3f}",
                f"faithfulness {self.faithfulness}   completeness {self.completeness} "
                "(the others alone)",
                equivalence_in_words(self.equivalent_within),
                f"right on {self.correct:.0%} of the prompts, the whole model on "
                f"{self.clean_correct:.0%}",
                f"what a member adds is surely not 0 for {n - len(self.idle)} of {n}",
                control,
            ]
        )


def _as_members(name: str, given: object) -> Any:
    """Reads a circuit as it is, and anything else as one set of units."""
    return given if isinstance(given, Circuit) else as_chosen(name, given)


@door(value_function=as_values, circuit=_as_members, n_random=Whole(0, 10**6), seed=SEED)
def faithfulness(
    value_function: ValuesLike,
    circuit: Circuit | str | Iterable[int | str],
    *,
    n_random: int = 20,
    seed: int = 0,
) -> Faithfulness:
    """Measure what a circuit carries by itself, and what each member adds.

    Measure it on outputs (prompts) that were not used to find it; else the scores flatter it.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> scores = mx.faithfulness(values, ["salt", "water"])
    >>> scores.faithfulness.value, scores.completeness.value
    (0.75, 0.25)

    Args:
        value_function: the model, with a task and a reference of its own: all scores depend on
            the reference.
        circuit: a circuit, or its members by name or column.
        n_random: random circuits of the same size, the control.
        seed: the seed of the random circuits and of the bootstrap.

    Raises:
        Refused: a member that is not there, or a value that ablating all units does not change.
        FailedMasksError: a mask of the circuit has no finite value.
    """
    value_function = as_value_function(value_function)
    # Of a circuit by name: the same unit may have another column here.
    chosen = circuit.names if isinstance(circuit, Circuit) else circuit
    members = columns_of(chosen, value_function.units)
    n_units = value_function.n_units
    rng = np.random.default_rng(seed)
    every = range(n_units)
    kept = keep_only(
        n_units,
        [
            every,
            (),
            members,
            sorted(set(every) - set(members)),
            *([other for other in members if other != one] for one in members),
            *(rng.permutation(n_units)[: len(members)].tolist() for _ in range(n_random)),
        ],
    )
    values = finite_values(value_function, kept, "masks of the circuit")
    clean, empty, alone, others = values[:4]
    whole = behaviour(clean, empty)
    score = scorer(whole, seed)
    rest = values[4:]
    return Faithfulness(
        units=value_function.units,
        members=members,
        configuration=value_function.configuration,
        clean=float(clean.mean()),
        ablated=float(empty.mean()),
        n_outputs=values.shape[1],
        faithfulness=score(alone - empty),
        completeness=score(others - empty),
        minimality=tuple(score(alone - without) for without in rest[: len(members)]),
        random=(rest[len(members) :] - empty).mean(axis=1) / whole.mean(),
        correct=float((alone > 0).mean()),
        clean_correct=float((clean > 0).mean()),
        equivalent_within=equivalence_margin(clean - alone, whole),
    )


@door(
    value_function=as_values,
    circuits=as_ranking,
    shares=Several(as_number, "ascending numbers above 0, up to 1"),
    seed=SEED,
)
def faithfulness_curve(
    value_function: ValuesLike,
    circuits: Sequence[int | str] | Mapping[int, Sequence[int | str]],
    *,
    shares: Sequence[float] = MIB_SHARES,
    seed: int = 0,
) -> Curve:
    """Faithfulness over sizes, and the areas CPR and CMD.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> ranking = ["salt", "water", "bread"]
    >>> curve = mx.faithfulness_curve(values, ranking, shares=[1 / 3, 2 / 3, 1.0])
    >>> curve.sizes, [score.value for score in curve.scores]
    ((1, 2, 3), [0.0, 0.75, 1.0])

    Args:
        value_function: the model, on outputs that were not used to find the circuits.
        circuits: a ranking of all units, best first; or {size: members} for every size asked for.
        shares: shares of the units, ascending up to 1; each is rounded up to whole units.
        seed: the seed of the bootstrap.

    Raises:
        Refused: a size without a circuit, shares that are not ascending in (0, 1].
    """
    value_function = as_value_function(value_function)
    n_units = value_function.n_units
    if not all(0 < share <= 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise Refused(f"shares = {list(shares)}: give ascending numbers above 0, up to 1")
    sizes = [math.ceil(share * n_units - 1e-9) for share in shares]
    sets = [_of_size(circuits, size, value_function.units) for size in sizes]
    kept = keep_only(n_units, [range(n_units), (), *sets])
    values = finite_values(value_function, kept, "masks of the circuit")
    clean, empty = values[:2]
    gained = values[2:] - empty
    whole = behaviour(clean, empty)
    score = scorer(whole, seed)
    return Curve(
        sizes=tuple(sizes),
        shares=tuple(shares),
        scores=tuple(score(row) for row in gained),
        cpr=score(gained, lambda curve: np.trapezoid(curve, shares, axis=0)),
        cmd=score(gained, lambda curve: np.trapezoid(np.abs(1 - curve), shares, axis=0)),
        gained=gained,
        whole=whole,
    )


def mib_sizes(n_units: int) -> tuple[int, ...]:
    """The sizes at which `faithfulness_curve` measures, each once."""
    return tuple(sorted({math.ceil(share * n_units - 1e-9) for share in MIB_SHARES}))


def _of_size(
    circuits: Sequence[int | str] | Mapping[int, Sequence[int | str]], size: int, units: UnitSet
) -> tuple[int, ...]:
    if isinstance(circuits, Mapping):
        if size == len(units):
            return tuple(range(size))
        if size not in circuits:
            raise Refused(f"no circuit of {size} units among {sorted(circuits)}; give one a size")
        members = circuits[size]
    else:
        members = circuits[:size]
    columns = columns_of(members, units)
    if len(columns) != size:
        raise Refused(f"{len(columns)} different units where {size} were asked for")
    return columns


def behaviour(
    clean: Float[np.ndarray, " output"], empty: Float[np.ndarray, " output"]
) -> Float[np.ndarray, " output"]:
    """f(all) − f(∅) for each output; its mean is what scores are shares of."""
    whole = clean - empty
    size = max(float(np.abs(clean).max()), float(np.abs(empty).max()), 1e-30)
    if abs(whole.mean()) <= 1e-5 * size:
        raise Refused(
            f"the value is {clean.mean():.4g} with all units kept and {empty.mean():.4g} with all "
            "ablated: there is no behaviour for a circuit to carry; choose other units or prompts"
        )
    return whole
