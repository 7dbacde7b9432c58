"""How good a decoder's answer is on masks that it was not given."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import BudgetError
from mechspex.decoders import decode
from mechspex.decoders.spex.design import SpexDesign
from mechspex.set_functions.r_squared import r2_interval, r_squared


def score(
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, "mask prompt"],
    fresh: Bool[np.ndarray, "other unit"],
    truth: Float[np.ndarray, " other"],
    decoder: str,
    keep: float,
    design: SpexDesign | None,
    seed: int,
) -> list[dict[str, Any]]:
    """A row with the R² of one decoder's answer, its interval, its terms and the seconds it took.

    No row where the masks are too few for the decoder.

    Args:
        masks, values: what the decoder is given.
        fresh: the masks that judge its answer.
        truth: their values, mean over prompts.
        decoder: the decoder's name.
        keep: the density of the masks.
        design: SPEX's design, if its masks are given.
        seed: the decoder's seed.
    """
    start = time.perf_counter()
    try:
        found = decode(masks, values, decoder=decoder, design=design, keep=keep, seed=seed)
    except BudgetError:
        return []
    seconds = time.perf_counter() - start
    predicted = found.predict(fresh)
    low, high = r2_interval(truth, predicted)
    return [
        {
            "y": r_squared(truth, predicted), "low": low, "high": high, "seconds": seconds,
            "terms": len(found),
        }
    ]  # fmt: skip
