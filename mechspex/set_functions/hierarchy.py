"""How often the largest coefficients of a set function come with their subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mechspex.core.units import Term

# The numbers of coefficients at which ProxySPEX shows its rates (Figure 3).
_TOPS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class HierarchyRates:
    """How often the k largest Fourier coefficients come with their subsets (ProxySPEX).

    F_k holds ∅ and the sets of the k − 1 largest other coefficients. ∅ always belongs to it, so
    that a constant added to the function changes nothing. Each rate is a mean over the k sets S of
    F_k; ∅ and singles count 1. The equations are those of Butler et al. 2025.

    Attributes:
        k: how many sets.
        n_interactions: how many of them have two units or more.
        direct_subset: mean of Σ_{i∈S} [S∖{i} ∈ F_k] / |S|, equation 3.
        staircase: share of sets that can be built from ∅ unit by unit inside F_k, equation 10.
        strong: share of sets whose every subset is in F_k, equation 11.
    """

    k: int
    n_interactions: int
    direct_subset: float
    staircase: float
    strong: float

    def among_interactions(self) -> HierarchyRates:
        """The same means over the interactions alone; 1 where there are none."""
        if self.n_interactions == 0:
            return replace(self, k=0)
        rates = (self.direct_subset, self.staircase, self.strong)
        scale = self.k / self.n_interactions
        return HierarchyRates(
            self.n_interactions, self.n_interactions, *(1 - (1 - rate) * scale for rate in rates)
        )


def direct_subsets(term: Term) -> list[Term]:
    """The sets that lack one unit of `term`."""
    return [term[:i] + term[i + 1 :] for i in range(len(term))]


def hierarchy_of(largest_first: tuple[Term, ...]) -> tuple[HierarchyRates, ...]:
    """The rates at k = 8, 16, … 256 and where the terms end; none of no terms."""
    if not largest_first:
        return ()
    n_sets = 1 + len(largest_first)
    tops = sorted({min(k, n_sets) for k in _TOPS})
    return tuple(_rates(largest_first[: k - 1]) for k in tops)


def _rates(sets: Sequence[Term]) -> HierarchyRates:
    """The rates of F_k = {∅} ∪ sets; smaller sets first, so that each reads its subsets' answer."""
    direct: dict[Term, float] = {(): 1.0}
    staircase: dict[Term, bool] = {(): True}
    strong: dict[Term, bool] = {(): True}
    for term in sorted(sets, key=len):
        subsets = direct_subsets(term)
        direct[term] = sum(subset in direct for subset in subsets) / len(term)
        staircase[term] = any(staircase.get(subset, False) for subset in subsets)
        strong[term] = all(strong.get(subset, False) for subset in subsets)
    k = len(direct)
    return HierarchyRates(
        k=k,
        n_interactions=sum(len(term) > 1 for term in sets),
        direct_subset=sum(direct.values()) / k,
        staircase=sum(staircase.values()) / k,
        strong=sum(strong.values()) / k,
    )
