"""Single units by gradients at circuits: each of what the gradients before it say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.core.backward_rules import CHAIN, BackwardRules
from mechspex.core.checks import Several, number_in, told
from mechspex.core.errors import Refused
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.screen_method import Scored, ScreenMethod

_RANKINGS = ("absolute", "signed")


@dataclass(frozen=True)
class Iterated(ScreenMethod):
    """Single units by gradients at circuits, each of the units that the gradients so far put first.

    ablated(i) ≈ −(1 / n) Σ_k g_i(m_k), k = 1 … n, with m_1 = start · 1, and m_{k+1} = 1 on the
    k-th share of the units, the best by the mean of the first k gradients, 0 on the others. What
    is measured of a ranking are its circuits; here gradients are taken where those are, not on the
    line on which all units go together as in `Integrated`. A unit that was left out has gradients
    as well, and may return, as in progressive pruning (de Jorge et al. 2021). Scores say how much
    a unit does *in circuits*, and rank them for `mechspex.faithfulness_curve`; the effect of
    ablating a unit in the whole model is told better by `FirstOrder`.

    Circuits that are to equal the model (CMD) are made of what does much on any output, even where
    that is for the answer on one and against it on another: with `by_output` the score of a unit
    is ± √mean_j e_ij², of the effects e_ij on each output j, with the sign of their mean. Its size
    ranks for that; for circuits that do most (CPR) rank by the mean.

    Attributes:
        circuits: for each gradient after the first, how units are ranked and what share of them is
            kept: ``signed`` keeps those whose ablation is predicted to lower the value most,
            ``absolute`` those with the largest effects of either sign. The default is for both
            rankings.
        start: how much of every unit is kept where the first gradient is taken.
        backward: by which rules gradients are made, where not by the chain rule.
        by_output: whether a score is the root mean square of the effects on each output, in place
            of their mean. Circuits for the gradients are by the mean in both.

    Raises:
        Refused: an unknown ranking, or a share outside (0, 1].
    """

    name: ClassVar[str] = "iterated"

    circuits: tuple[tuple[str, float], ...] = (
        ("absolute", 0.2),
        ("signed", 0.5),
        ("signed", 0.2),
        ("absolute", 0.05),
    )
    start: float = 0.8
    backward: BackwardRules = CHAIN
    by_output: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _CIRCUITS("circuits", self.circuits)
        if not _is_share(self.start):
            raise Refused(f"start = {told(self.start)}: give a share above 0 and up to 1")

    @property
    def rules(self) -> BackwardRules:
        return self.backward

    def singles(self, recorded: RecordedValues) -> Float[np.ndarray, " unit"]:
        """The predicted effect of every unit.

        Args:
            recorded: the value function, with gradients.
        """
        if self.by_output:
            return signed_size(self.effects(recorded))
        total = self._gradients(recorded, lambda point: recorded.value_and_mean_gradient(point)[1])
        return -total[0] / (1 + len(self.circuits))

    def effects(self, recorded: RecordedValues) -> Float[np.ndarray, "output unit"]:
        """The predicted effect of every unit on every output; their means are the scores of single
        units. Gradients of each output are measured anew: a run keeps only their mean.

        Args:
            recorded: the value function, with gradients.
        """
        gradients = self._gradients(
            recorded, lambda point: recorded.value_and_gradient(point)[1][0]
        )
        return -gradients / (1 + len(self.circuits))

    def _gradients(
        self, recorded: RecordedValues, slopes: Callable[[np.ndarray], np.ndarray]
    ) -> Float[np.ndarray, "row unit"]:
        """The sum of all gradients, a row for each that `slopes` tells apart."""
        recorded.stage = "circuits"
        n_units = recorded.n_units
        point = np.full((1, n_units), self.start, dtype=np.float32)
        found = slopes(point).astype(np.float64)
        for ranking, share in self.circuits:
            total = found.mean(axis=0)
            key = -total if ranking == "signed" else -np.abs(total)
            point = np.zeros((1, n_units), dtype=np.float32)
            point[0, np.argsort(key, kind="stable")[: math.ceil(share * n_units - 1e-9)]] = 1
            found += slopes(point)
        return found

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        return Scored.of_singles(self.singles(recorded), n_terms)


def signed_size(effects: Float[np.ndarray, "output unit"]) -> Float[np.ndarray, " unit"]:
    """The root mean square of the effects of each unit over outputs, with their mean's sign."""
    return np.copysign(np.sqrt((effects**2).mean(axis=0)), effects.mean(axis=0))


def _is_share(given: object) -> bool:
    number = number_in(given)
    return number is not None and 0 < number <= 1


def _circuit(name: str, given: object) -> tuple[str, float]:
    """Reads how units are ranked, and what share of them is kept."""
    match given:
        case (str(ranking), share) if ranking in _RANKINGS and _is_share(share):
            return ranking, float(share)
    raise Refused(
        f"{name} = {told(given)}: give {' or '.join(_RANKINGS)} and a share above 0 and up to 1, "
        'such as ("signed", 0.5)'
    )


_CIRCUITS = Several(_circuit, 'a tuple of circuits, such as (("signed", 0.5),)')
