"""Cross-validation of decoders: what they say of masks that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples

_FOLDS = 5

Split = tuple[np.ndarray, np.ndarray]


def folds(samples: Samples, held_out: int) -> list[Split]:
    """(training rows, test rows): of the parts as many as give `held_out` test rows.

    With many masks one part in five measures R² as well as five do with few.
    """
    rows = np.arange(samples.n_masks)
    splits, tested = [], 0
    for part in parts(samples, _FOLDS):
        if tested < held_out:
            splits.append((np.setdiff1d(rows, part), part))
            tested += len(part)
    return splits


def parts(samples: Samples, n_parts: int) -> list[Int[np.ndarray, " row"]]:
    """The rows in `n_parts` random parts; of SPEX's design one part a group, which stays whole."""
    rng = np.random.default_rng(samples.seed)
    structured = [np.unique(group.rows) for group in samples.groups]
    if len(structured) < 2:
        return np.array_split(rng.permutation(samples.n_masks), n_parts)
    others = np.setdiff1d(np.arange(samples.n_masks), np.concatenate(structured))
    shares = np.array_split(rng.permutation(others), len(structured))
    return [rng.permutation(np.concatenate(both)) for both in zip(structured, shares, strict=True)]


def held_out_predictions(
    samples: Samples, decoder: Decoder, splits: Sequence[Split]
) -> Float[np.ndarray, "held_out output"]:
    """What the decoder says of each fold's test masks, learnt from the fold's training masks."""
    return np.concatenate(
        [
            decoder.decode(samples.rows(train)).predict_outputs(samples.masks[test])
            for train, test in splits
        ]
    )


def cross_fit(
    samples: Samples, decoder: Decoder, n_parts: int
) -> tuple[list[dict[Term, Float[np.ndarray, " output"]]], Float[np.ndarray, "mask output"]]:
    """What is recovered without each part of the rows, and each row's residual without its part.

    The functions come as {term: coefficient of each output} in the Fourier basis of the design.
    """
    rows = np.arange(samples.n_masks)
    found, residual = [], np.empty_like(samples.values)
    for part in parts(samples, n_parts):
        answer = decoder.decode(samples.rows(np.setdiff1d(rows, part)))
        residual[part] = samples.values[part] - answer.predict_outputs(samples.masks[part])
        fourier = answer.to_basis("fourier", samples.keep)
        found.append(dict(zip(fourier.terms, fourier.output_coefficients, strict=True)))
    return found, residual
