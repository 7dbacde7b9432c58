"""Interaction indices, read from the Walsh–Hadamard coefficients F(S) of ∏_{i∈S} (−1)^{m_i}.

The formulas are those of Butler et al. 2025 (ProxySPEX), appendix A.1. Each is linear in F, so
each is a walk over the subsets of the few terms: exact, and sparse where F is sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from mechspex.core.errors import Refused
from mechspex.core.units import Term, subsets_of

Walsh = Mapping[Term, float]
IndexKind = Literal[
    "shapley", "banzhaf", "influence", "moebius", "shapley_interaction", "faith_banzhaf"
]


def compute(kind: IndexKind, walsh: Walsh, order: int | None = None) -> dict[Term, float]:
    """One interaction index of a function.

    Args:
        kind: the name of the index.
        walsh: the function's Walsh–Hadamard coefficients, {S: F(S)}.
        order: for ``shapley_interaction`` and ``faith_banzhaf``; None for all others.

    Returns:
        {set of units: index}; an absent set has the index 0.

    Raises:
        Refused: an unknown kind, or an order where none is taken (or none where one is).
    """
    if kind in _BY_ORDER:
        if order is None or order < 1:
            raise Refused(f"index {kind!r} needs an order of at least 1, got {order}")
        return _BY_ORDER[kind](walsh, order)
    if kind in _PLAIN:
        if order is not None:
            raise Refused(f"index {kind!r} takes no order, got {order}")
        return _PLAIN[kind](walsh)
    raise Refused(f"kind = {kind!r}: choose one of {', '.join([*_PLAIN, *_BY_ORDER])}")


def banzhaf(walsh: Walsh) -> dict[Term, float]:
    """Banzhaf_i = −2 F({i}): the mean effect of keeping unit i, the others kept or not at ½."""
    return {term: -2 * value for term, value in walsh.items() if len(term) == 1}


def shapley(walsh: Walsh) -> dict[Term, float]:
    """Shapley_i = −2 Σ_{S∋i, |S| odd} F(S)/|S|: what unit i adds, mean over all orders of units."""
    return _sum(
        ((i,), -2 * value / len(term))
        for term, value in walsh.items()
        if len(term) % 2
        for i in term
    )


def influence(walsh: Walsh) -> dict[Term, float]:
    """Influence_i = Σ_{S∋i} F(S)²: the variance at p = ½ of all terms that hold unit i."""
    return _sum(((i,), value**2) for term, value in walsh.items() for i in term)


def moebius(walsh: Walsh) -> dict[Term, float]:
    """Möbius(T) = (−2)^{|T|} Σ_{S⊇T} F(S): the coefficients of the ``kept`` basis."""
    return _sum(
        (subset, (-2) ** len(subset) * value)
        for term, value in walsh.items()
        for subset in subsets_of(term, len(term))
    )


def shapley_interaction(walsh: Walsh, order: int) -> dict[Term, float]:
    """Shapley interaction(T) = (−2)^{|T|} Σ_{S⊇T, |S|−|T| even} F(S)/(|S|−|T|+1), |T| ≤ `order`."""
    return _sum(
        (subset, (-2) ** len(subset) * value / (len(term) - len(subset) + 1))
        for term, value in walsh.items()
        for subset in subsets_of(term, order)
        if subset and (len(term) - len(subset)) % 2 == 0
    )


def faith_banzhaf(walsh: Walsh, order: int) -> dict[Term, float]:
    """Faith-Banzhaf(T) of order ℓ = (−2)^{|T|} Σ_{S⊇T, |S|≤ℓ} F(S), with ℓ = `order`.

    These are the ``kept`` coefficients of the best approximation of order ℓ under the uniform
    design.
    """
    return moebius({term: value for term, value in walsh.items() if len(term) <= order})


_PLAIN: dict[str, Callable[[Walsh], dict[Term, float]]] = {
    "shapley": shapley,
    "banzhaf": banzhaf,
    "influence": influence,
    "moebius": moebius,
}
_BY_ORDER: dict[str, Callable[[Walsh, int], dict[Term, float]]] = {
    "shapley_interaction": shapley_interaction,
    "faith_banzhaf": faith_banzhaf,
}


def _sum(shares: Iterable[tuple[Term, float]]) -> dict[Term, float]:
    total: dict[Term, float] = {}
    for term, share in shares:
        total[term] = total.get(term, 0.0) + share
    return total
