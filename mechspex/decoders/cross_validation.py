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

    With many masks one fold measures R² as well as five folds do with few. A fold is tested on
    masks that its training rows do not hold, each once: few units have few masks, and one that was
    drawn in both says how well values are remembered.

    Args:
        samples: the masks to split.
        held_out: how many test masks the folds hold together, at least; all five hold every mask,
            but those that came up in several parts.

    Returns:
        (training rows, test rows) of each fold.
    """
    rows = np.arange(samples.n_masks)
    if not _stay_together(samples):
        splits = [(np.setdiff1d(rows, part), part) for part in disjoint_parts(samples, _FOLDS)]
    else:
        first = samples.first_rows
        whole = [(np.setdiff1d(rows, part), part) for part in _parts_by_mask(samples, first)]
        unseen = ((train, _unseen(first, train, part)) for train, part in whole)
        splits = [split for split in unseen if len(split[1])] or whole
    tested = np.cumsum([len(test) for _, test in splits])
    return splits[: 1 + np.count_nonzero(tested < held_out)]


def disjoint_parts(samples: Samples, n_parts: int) -> list[Int[np.ndarray, " row"]]:
    """All rows in random parts of equal size; in SPEX's design each group is a part, left whole.

    Rows of one mask are spread like any others: `cross_fit` takes a part as draws of the design,
    which it would not be if masks had a say in which part they are in.

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


def _parts_by_mask(
    samples: Samples, first: Int[np.ndarray, " mask"]
) -> list[Int[np.ndarray, " row"]]:
    """All rows in parts of equal size, most masks with all their rows in one of them.

    The rows of a mask lie side by side before they are cut into parts. A mask of more rows than a
    part would be all of some parts: its rows are dealt out over all of them.
    """
    drawn = np.random.default_rng(samples.seed).permutation(np.unique(first))
    place = np.empty_like(first)
    place[drawn] = np.arange(len(drawn))
    order = np.argsort(place[first], kind="stable")
    often = (np.bincount(first)[first] * _FOLDS > samples.n_masks)[order]
    # One has its larger parts first, the other last: together no part is too large.
    rest, dealt = (np.array_split(some, _FOLDS) for some in (order[~often], order[often]))
    return [np.concatenate(both) for both in zip(rest, dealt[::-1], strict=True)]


def _stay_together(samples: Samples) -> bool:
    """Whether the rows of a mask belong in one part: some mask has not been seen that may be asked.

    SPEX's groups are the parts of its design. Where every mask there is has been drawn, an answer
    that remembers all of them knows all that there is to know.
    """
    n_masks = len(np.unique(samples.first_rows))
    return len(samples.groups) < 2 and n_masks.bit_length() - 1 < samples.n_units


def _unseen(
    first: Int[np.ndarray, " mask"],
    train: Int[np.ndarray, " train"],
    part: Int[np.ndarray, " part"],
) -> Int[np.ndarray, " test"]:
    """One row of each mask of a part that is not in training, in the order of the part."""
    unseen = part[~np.isin(first[part], first[train])]
    return unseen[np.sort(np.unique(first[unseen], return_index=True)[1])]


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
