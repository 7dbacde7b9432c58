"""Cross-validation of decoders: what they say of masks that they have not seen."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples

# Training rows are four fifths of the masks.
_FOLDS = 5

Split = tuple[np.ndarray, np.ndarray]


def folds(samples: Samples, held_out: int) -> list[Split]:
    """Folds for cross-validation, no more of the five than are needed.

    With many masks one fold measures R² as well as five folds do with few.

    Args:
        samples: the masks to split.
        held_out: how many test rows the folds hold together, at least; all five hold every mask.

    Returns:
        (training rows, test rows) of each fold.
    """
    rows = np.arange(samples.n_masks)
    splits, tested = [], 0
    for part in disjoint_parts(samples, _FOLDS):
        if tested < held_out:
            splits.append((np.setdiff1d(rows, part), part))
            tested += len(part)
    return splits


def disjoint_parts(samples: Samples, n_parts: int) -> list[Int[np.ndarray, " row"]]:
    """All rows in random parts of equal size; in SPEX's design each group is a part, left whole.

    Args:
        samples: the masks to split.
        n_parts: how many parts, unless the masks hold two groups of SPEX's design or more.
    """
    rng = np.random.default_rng(samples.seed)
    structured = [np.unique(group.rows) for group in samples.groups]
    if len(structured) < 2:
        return np.array_split(rng.permutation(samples.n_masks), n_parts)
    others = np.setdiff1d(np.arange(samples.n_masks), np.concatenate(structured))
    shares = np.array_split(rng.permutation(others), len(structured))
    return [rng.permutation(np.concatenate(both)) for both in zip(structured, shares, strict=True)]


def cross_fit(
    samples: Samples, decoder: Decoder, n_parts: int
) -> tuple[list[dict[Term, Float[np.ndarray, " output"]]], Float[np.ndarray, "mask output"]]:
    """Recover a function without each part of the rows, and score it on that part.

    Args:
        samples: the masks and values.
        decoder: the decoder that recovers the functions.
        n_parts: how many parts, see `disjoint_parts`.

    Returns:
        For each part, {term: coefficient of each output} in the Fourier basis of the design,
        recovered from the other parts; and for each row the residual f − f̂₋ with f̂₋ recovered
        without its part.
    """
    rows = np.arange(samples.n_masks)
    functions, residual = [], np.empty_like(samples.values)
    for part in disjoint_parts(samples, n_parts):
        answer = decoder.decode(samples.rows(np.setdiff1d(rows, part)))
        residual[part] = samples.values[part] - answer.predict_outputs(samples.masks[part])
        fourier = answer.to_basis("fourier", samples.keep)
        functions.append(dict(zip(fourier.terms, fourier.output_coefficients, strict=True)))
    return functions, residual
