"""Planted functions of the papers: sums of sets without relation, or with all their subsets."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np

from mechspex.core.units import Term
from mechspex.set_functions.set_function import SetFunction

Structure = Literal["peak", "complete hierarchy"]
# As Butler et al. 2025 plant them: ten sets of five units.
SETS, SIZE = 10, 5


def planted(
    n_units: int, structure: Structure, seed: int, *, decay: float = 1.0, n_sets: int = SETS
) -> SetFunction:
    """Random sets of five units (``peak``), or all their subsets (``complete hierarchy``).

    Fourier coefficients at ½ of sets of size s are uniform in [−1, 1]·decay^(s − 1) (Butler et al.
    2025, Figure 13, without decay).

    Args:
        n_units: the number of units, at least five.
        structure: which sets have a coefficient.
        seed: the only source of randomness.
        decay: how much smaller coefficients are with each unit more.
        n_sets: how many sets of five are drawn.
    """
    rng = np.random.default_rng((n_units, seed))
    tops = [rng.choice(n_units, SIZE, replace=False).tolist() for _ in range(n_sets)]
    sizes = range(1, SIZE + 1) if structure == "complete hierarchy" else (SIZE,)
    sets: dict[Term, float] = {}
    for top in tops:
        for size in sizes:
            for term in combinations(sorted(top), size):
                sets.setdefault(term, 0.0)
    size = decay ** (np.array([len(term) for term in sets]) - 1)
    values = (rng.uniform(-1, 1, len(sets)) * size).tolist()
    return SetFunction.from_mapping(
        n_units, dict(zip(sets, values, strict=True)), basis="fourier", keep=0.5
    )


def f1(found: SetFunction, true: SetFunction, least: float = 0.05) -> float:
    """F1 of the sets, of any order from one, whose fourier(½) coefficient counts.

    Args:
        found: what a decoder says.
        true: what was planted.
        least: the share of the median planted coefficient that counts.
    """
    terms = found.to_basis("fourier", 0.5).to_mapping()
    limit = least * float(np.median(np.abs(true.coefficients)))
    counted = {term for term, value in terms.items() if term and abs(value) > limit}
    wanted = set(true.terms)
    return 2 * len(counted & wanted) / (len(counted) + len(wanted))
