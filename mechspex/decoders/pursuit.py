"""Pursuit decoder: greedy search for few terms, in the basis where they are fewest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.spex.decoder import Spex
from mechspex.decoders.stepwise import LARGEST_ORDER, Search
from mechspex.decoders.triples import fewest_masks, scan_triples
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

# Interactions after which the bases are compared and only the best one goes on.
_HEAD_START = 40


@dataclass(frozen=True, repr=False)
class Pursuit(Decoder):
    """Stepwise regression on sets of units, chosen by the extended information criterion.

    Each round scans the residual's correlation with every single, every pair (one matrix product,
    Zᵀ diag(r) Z) and the extensions of the best sets by one unit. It adds the terms that most lower

        EBIC = N log det(RᵀR) + Σ_S price(S),    price(S) = log N + 2 log C(n, |S|)  for one output

    and drops terms that no longer pay. A set that does nothing lowers the EBIC only if it is the
    luckiest of all C(n, |S|) by a margin of log N. So on pure noise the chance of reporting any
    interaction falls as 1/√N (Chen & Chen 2008, the criterion at γ = 1).

    Several outputs share the terms. R holds the residual along the q principal directions of the
    outputs, so an effect that cancels in their mean is found. With t = price(S)/2 the price becomes
    2t + q − 1 + 2√((q−1)t), the same tail of χ² with q degrees of freedom (Laurent & Massart 2000,
    lemma 1).

    An AND is one term in the `kept` basis, an OR one in `ablated`, a parity one in `fourier`. All
    bases that suit the design are tried. The one with the lowest EBIC of leave-one-out residuals
    after some forty interactions goes on to the end. A pair is found even if neither of its units
    acts alone: all pairs are scanned, in blocks, also where there are a billion. So is a triple,
    where `scan_triples` can scan them all; the notes say where it could not. A larger set is found
    above a smaller set that shows and rests on eight masks, or if it is proposed: by SPEX where the
    masks are SPEX's, by other decoders, or by the user. A mask that was drawn twice counts once.

    Attributes:
        candidates: sets that are tried in every round, such as those of a screen.
        proposers: other decoders whose terms are tried too, such as boosted trees.
    """

    name: ClassVar[str] = "pursuit"

    candidates: tuple[Term, ...] = ()
    proposers: tuple[Decoder, ...] = ()

    def minimum_masks(self, n_units: int) -> int:
        return 20

    def fit(self, samples: Samples) -> SetFunction:
        samples = samples.distinct
        bases: list[Basis] = ["ablated", "kept"]
        # Elsewhere a Fourier product takes its variance from a few rare masks.
        if samples.n_masks >= fewest_masks(samples):
            bases.append("fourier")
        start = Search(samples, self._proposed(samples))
        searches = [start.in_basis(basis) for basis in bases]
        for search in searches:
            search.climb(search.order, _HEAD_START)
        best = min(searches, key=lambda search: search.score)
        best.climb(best.order)
        _scan_all_pairs(best)
        best, searched = scan_triples(samples, searches, best)
        coefficients = best.output_coefficients()
        coefficients[0] += samples.values.mean(axis=0)
        note = (
            f"pursuit: {len(best.terms) - 1} terms, fewest in the {best.basis} basis; all pairs "
            f"{searched}"
        )
        terms = dict(zip(best.terms, coefficients, strict=True))
        return samples.function(terms, basis=best.basis, notes=(note,))

    def _proposed(self, samples: Samples) -> tuple[Term, ...]:
        proposers = (Spex(), *self.proposers) if samples.groups else self.proposers
        answers = (decoder.decode(samples) for decoder in proposers)
        terms = [*self.candidates, *(term for answer in answers for term in answer.terms)]
        highest = samples.order_up_to(LARGEST_ORDER)
        return tuple(dict.fromkeys(term for term in terms if 0 < len(term) <= highest))


def _scan_all_pairs(search: Search) -> None:
    """Where there are too many pairs for a round: scan them once, and climb from the best."""
    if search.order < 2 or search.is_exact or search.factors.all_pairs_a_round:
        return
    search.proposed += tuple(search.factors.best_of_all_pairs(search.residual))
    search.climb(search.order)


def charged_r2(samples: Samples, answer: SetFunction) -> float:
    """R² on the training masks, each term charged what it costs to find it by the EBIC.

    1 − (RSS/TSS)·exp(Σ_S price(S)/N) over N distinct masks: a term that chance could have found
    lowers it.

    Args:
        samples: the training masks and values.
        answer: the function that was recovered from them.
    """
    samples = samples.distinct
    n_masks, n_units = samples.n_masks, samples.n_units
    unexplained = 1 - r_squared(samples.values, answer.predict_outputs(samples.masks))
    prices = sum(
        math.log(n_masks) + 2 * math.log(math.comb(n_units, len(term))) for term in answer.terms
    )
    return 1 - unexplained * math.exp(min(prices / n_masks, 700.0))
