"""Cross-validation of decoders: what they say of masks that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mechspex.decoders.decoder import Decoder, Samples

_FOLDS = 5

Split = tuple[np.ndarray, np.ndarray]


def folds(samples: Samples, held_out: int) -> list[Split]:
    """(training rows, test rows): of five folds as many as give `held_out` test rows.

    With many masks one fold in five measures R² as well as five do with few.
    """
    shuffled = np.random.default_rng(samples.seed).permutation(samples.n_masks)
    parts = np.array_split(shuffled, _FOLDS)
    splits, tested = [], 0
    for part in parts:
        if tested < held_out:
            splits.append((np.setdiff1d(shuffled, part), part))
            tested += len(part)
    return splits


def held_out_predictions(
    samples: Samples, decoder: Decoder, splits: Sequence[Split]
) -> Float[np.ndarray, " held_out"]:
    """What the decoder says of each fold's test masks, learnt from the fold's training masks."""
    return np.concatenate(
        [decoder.decode(samples.rows(train)).predict(samples.masks[test]) for train, test in splits]
    )
