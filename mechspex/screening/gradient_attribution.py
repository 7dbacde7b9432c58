"""Single units by gradients: attribution patching, along a line, and by other backward rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.core.backward_rules import ATP_STAR, CHAIN, RELP, BackwardRules
from mechspex.core.backward_rules import GIM as _GIM
from mechspex.core.checks import Several, number_in, told
from mechspex.core.errors import Refused
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.attribution import along_the_line, first_order
from mechspex.screening.screen_method import Scored, ScreenMethod, at_least


@dataclass(frozen=True)
class FirstOrder(ScreenMethod):
    """Single units by gradients: ablated(i) ≈ −½ g_i(m_i = ½) − ½ g_i(m_i = 1).

    Attribution patching, half of it at the midpoint and half plain. The midpoint alone, ``at=0.5``,
    is exact where f is quadratic in m_i, but units halved together disturb each other.

    Attributes:
        parts: into how many parts units are dealt, each with a gradient; 0 for the plain one alone.
        keep: the effect of each unit among random masks which keep so many of the others, not in
            the otherwise whole model.
        backward: by which rules gradients are made, where not by the chain rule.
        at: how much of a unit is kept where its gradient is taken, or several such shares, to be
            averaged; 1 takes one gradient for all units. Nothing with `keep`, or with 0 `parts`.

    Raises:
        Refused: a number below 0, a density outside (0, 1), or a share of a unit outside (0, 1].
    """

    name: ClassVar[str] = "first_order"

    parts: int = 30
    keep: float | None = None
    backward: BackwardRules = CHAIN
    at: float | tuple[float, ...] = field(default=(0.5, 1.0), kw_only=True)

    @property
    def rules(self) -> BackwardRules:
        return self.backward

    def __post_init__(self) -> None:
        at_least(self, parts=0 if self.keep is None else 1)
        if self.keep is not None and not 0 < self.keep < 1:
            raise Refused(
                f"keep = {self.keep}: give a probability strictly between 0 and 1, or None"
            )
        _shares(self.at)

    def singles(self, recorded: RecordedValues, seed: int) -> Float[np.ndarray, " unit"]:
        """The predicted effect of every unit.

        Args:
            recorded: the value function, with gradients.
            seed: the only source of randomness.
        """
        return first_order(recorded, self.parts, _shares(self.at), seed, self.keep)

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        return Scored.of_singles(self.singles(recorded, seed), n_terms)


@dataclass(frozen=True)
class Integrated(ScreenMethod):
    """Single units by gradients along the line on which all units go from kept to ablated.

    ablated(i) ≈ −(1 / n) Σ_k g_i(m = (k − ½) / n · 1), k = 1 … n. All scores together add up to
    what ablating everything changes, up to the error of the sum (integrated gradients; over
    activations as in EAP-IG, Hanna et al. 2024).

    Attributes:
        steps: how many gradients are taken.
        backward: by which rules, where not by the chain rule.

    Raises:
        Refused: fewer than one step.
    """

    name: ClassVar[str] = "integrated"

    steps: int = 10
    backward: BackwardRules = CHAIN

    def __post_init__(self) -> None:
        at_least(self, steps=1)

    @property
    def rules(self) -> BackwardRules:
        return self.backward

    def scored(self, recorded: RecordedValues, n_terms: int, seed: int) -> Scored:
        return Scored.of_singles(along_the_line(recorded, self.steps), n_terms)


@dataclass(frozen=True)
class GIM(FirstOrder):
    """Single units by one gradient that sees through saturated attention and norms.

    ablated(i) ≈ −g_i(1) with the softmax of attention differentiated at temperature 2, norms
    frozen, and shares of ¼ for queries and keys and ½ for values (Edin et al. 2025).

    Attributes:
        parts, keep, at: see `FirstOrder`; one gradient at the whole model.
        backward: the rules.
    """

    name: ClassVar[str] = "gim"

    parts: int = 0
    backward: BackwardRules = _GIM


@dataclass(frozen=True)
class RelP(FirstOrder):
    """Single units by one gradient with the rules of relevance propagation.

    ablated(i) ≈ −g_i(1) with attention patterns and norms frozen, activations as gains, and half of
    the gradient for each factor of a gate (Jafari et al. 2025).

    Attributes:
        parts, keep, at: see `FirstOrder`; one gradient at the whole model.
        backward: the rules.
    """

    name: ClassVar[str] = "relp"

    parts: int = 0
    backward: BackwardRules = RELP


@dataclass(frozen=True)
class AtPStar(FirstOrder):
    """Single units by gradients that leave out one block each, so that paths do not cancel.

    |ablated(i)| ≈ Σ_l |g_i without block l| / (L − 1), with the sign of the whole gradient
    (GradDrop of Kramár et al. 2024). Of an edge into a query or key g is, as in their query and key
    fix, not the slope of the softmax, but Σ (A − A′) · ∂f/∂A, with A the attention pattern and A′
    the one that is left without the edge: two forwards for each part that writes. That alone, which
    tells edges better, is ``FirstOrder(parts=0, backward=BackwardRules(pattern_recomputed=True))``.

    Attributes:
        parts, keep, at: see `FirstOrder`; one gradient at the whole model.
        backward: the rules.
    """

    name: ClassVar[str] = "atp_star"

    parts: int = 0
    backward: BackwardRules = ATP_STAR


def _share(name: str, given: object) -> float:
    """Reads how much of a unit is kept."""
    number = number_in(given)
    if number is None or not 0 < number <= 1:
        raise Refused(f"{name} = {told(given)}: give shares of a unit, above 0 and up to 1")
    return float(number)


def _shares(at: object) -> list[float]:
    shares = Several(_share, "a share of a unit, or a tuple of them")("at", at)
    if not shares:
        raise Refused(f"at = {at}: give at least one share of a unit, such as 0.5")
    return shares
