"""Triples that no smaller set betrays: where all of them are scanned, and what is made of them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int

from mechspex.core.units import Term
from mechspex.decoders.decoder import Samples
from mechspex.decoders.stepwise import SUPPORT, Search

# Multiplications of a scan along one direction, a few seconds of one core: 500 units and 9,600
# masks. With more units the strongest are scanned; with fewer, more directions of the outputs.
_WORK, _WORK_OF_MORE_DIRECTIONS = 2e11, 2e10
# Below this share of the variance, what is left over is not worth a scan.
_LEFT = 0.02
# Scans of one fit: each sees what the triples of the one before left over.
_MOST_SCANS = 3


def fewest_masks(samples: Samples) -> int:
    """The masks with which a Fourier product of three units rests on enough of them.

    A factor z of fourier(p) has the fourth moment κ = 1/(p(1−p)) − 3, a product of three κ³. So its
    variance rests on N/κ³ of N masks: on all of them at p = ½, on one in 533 at p = .9.

    Args:
        samples: the masks; their density is p.
    """
    share = float(samples.masks.mean())
    return math.ceil(SUPPORT * (1 / max(share * (1 - share), 1e-6) - 3) ** 3)


def scan_triples(samples: Samples, searches: list[Search], best: Search) -> tuple[Search, str]:
    """Scan all sets of three and climb on from those that pay, in whichever basis is shortest then.

    The price of a triple counts all C(n, 3) of them, so a triple of chance pays as rarely as a pair
    of chance.

    Args:
        samples: the masks and values.
        searches: the searches so far, one a basis.
        best: the one of them that was taken to the end.

    Returns:
        The best search, and what was searched, to end a note on "all pairs".
    """
    why = ""
    if samples.groups:
        return best, "searched, sets without structure come from SPEX's design"
    if best.order < 3:
        why = f"sets have at most {best.order} units"
    elif best.unexplained < _LEFT:
        why = f"less than {_LEFT:.0%} of the variance is left over"
    elif samples.n_masks < (needed := fewest_masks(samples)):
        why = f"at density {samples.masks.mean():.2f} that takes {needed:,} masks"
    if why:
        above = "sets of three and more are looked for above sets that show"
        return best, f"searched, {above}; not all triples were scanned: {why}"
    units = _units_in_reach(samples, best)
    for _ in range(_MOST_SCANS):
        triples = _paying_triples(samples, best, units)
        if not triples:
            break
        for search in searches:
            search.proposed += triples
            search.climb(search.order)
        best = min(searches, key=lambda search: search.score)
        if best.is_exact:
            break
    larger = "larger sets are looked for above sets that show"
    if len(units) == samples.n_units:
        return best, f"and triples searched, {larger}"
    among = f"{len(units):,} of {samples.n_units:,} units"
    return best, f"searched and all triples among {among}, {larger}"


def _units_in_reach(samples: Samples, search: Search) -> Int[np.ndarray, " unit"]:
    """All units, or those that a scan has time for: the ones that act so far, the strongest."""
    most = min(samples.n_units, int((6 * _WORK / samples.n_masks) ** (1 / 3)))
    acting = dict.fromkeys(unit for term in search.terms for unit in term)
    strongest = samples.strongest_units(samples.n_units if most == samples.n_units else most)
    return np.sort(np.array([*dict.fromkeys([*acting, *strongest.tolist()])][:most]))


def _paying_triples(
    samples: Samples, search: Search, units: Int[np.ndarray, " unit"]
) -> tuple[Term, ...]:
    """The triples that come near to paying, none unless one of them pays by itself."""
    price, n_masks = search.price(3), samples.n_masks
    # The terms that are still to come lower the residual, and so raise the other scores.
    least = -n_masks * math.expm1(-price / 2 / n_masks)
    work = n_masks * len(units) ** 3 / 6
    directions = max(1, int(_WORK_OF_MORE_DIRECTIONS / work))
    triples, scores = search.factors.best_of_all_triples(search.residual, units, least, directions)
    if not triples or -n_masks * math.log1p(-min(scores[0] / n_masks, 1 - 1e-15)) <= price:
        return ()
    present = {*search.terms, *search.proposed}
    return tuple(triple for triple in triples if triple not in present)
