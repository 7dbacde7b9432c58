"""Outputs drawn again, with replacement: as many prompts as there are, others than they are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def drawn_outputs(
    n_outputs: int, rng: np.random.Generator, n_draws: int = 2_000
) -> Int[np.ndarray, "draw output"]:
    """How often each output is in each draw (Efron 1979); the counts of a draw sum to `n_outputs`.

    Args:
        n_outputs: how many outputs there are, and how many a draw takes.
        rng: draws them.
        n_draws: how many draws.
    """
    return rng.multinomial(n_outputs, np.full(n_outputs, 1 / n_outputs), size=n_draws)
