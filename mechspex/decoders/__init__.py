"""Decoders: from masks and values to a sparse set function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.checks import SEED, Only
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.threads import on_one_thread
from mechspex.decoders.additive import Additive
from mechspex.decoders.automatic import Automatic, DecoderComparison, Mean
from mechspex.decoders.automatic import compare as _compare
from mechspex.decoders.decoder import Decoder, check_samples
from mechspex.decoders.exhaustive import Exhaustive
from mechspex.decoders.kernel import Kernel
from mechspex.decoders.proxyspex import ProxySpex
from mechspex.decoders.pursuit import Pursuit
from mechspex.decoders.residual import Residual
from mechspex.decoders.spex.decoder import Spex
from mechspex.decoders.spex.design import SpexDesign
from mechspex.set_functions.set_function import SetFunction

__all__ = [
    "DECODERS",
    "Additive",
    "Automatic",
    "Comparison",
    "Decoder",
    "DecoderComparison",
    "Exhaustive",
    "Kernel",
    "Mean",
    "ProxySpex",
    "Pursuit",
    "Residual",
    "Spex",
    "as_decoder",
    "compare",
    "decode",
    "find_decoder",
]

# The earlier name of `DecoderComparison`.
Comparison = DecoderComparison

DECODERS: dict[str, Decoder] = {
    decoder.name: decoder
    for decoder in (
        Additive(),
        Automatic(),
        Exhaustive(),
        Kernel(),
        ProxySpex(),
        Pursuit(),
        Spex(),
    )
}


def as_decoder(name: str, given: object) -> Any:
    """Reads a decoder: a name, a decoder, or the class of one that has no need of options.

    Raises:
        Refused: something else.
    """
    if isinstance(given, type) and issubclass(given, Decoder):
        given = given()
    wanted = f"{', '.join(sorted(DECODERS))}, or a decoder such as Pursuit(max_order=2)"
    return Only((str, Decoder), wanted)(name, given)


# The doors below also take arrays of other shapes and dtypes: `check_samples` says what is wrong
# with them and what to do, which a type checker would not.


@door(decoder=as_decoder, seed=SEED)
@on_one_thread
def decode(
    masks: Bool[np.ndarray, "mask unit"] | np.ndarray,
    values: Float[np.ndarray, " mask *output"] | np.ndarray,
    *,
    decoder: str | Decoder = "automatic",
    keep: float | None = None,
    max_order: int | None = None,
    design: SpexDesign | None = None,
    seed: int = 0,
) -> SetFunction:
    """Recover the few sets of units that explain the values of masked models.

    The answer is a sum over few sets S of units, f(m) ≈ Σ_S c_S φ_S(m); see `SetFunction`.

    >>> import mechspex as mx
    >>> masks = mx.sample_masks(12, 300)
    >>> values = 1.0 + 2.0 * masks[:, 1] - 3.0 * (masks[:, 4] & masks[:, 9])
    >>> function = mx.decode(masks, values, decoder="pursuit")
    >>> {term: round(effect, 6) for term, effect in function.to_basis("kept").to_mapping().items()}
    {(): 1.0, (1,): 2.0, (4, 9): -3.0}

    Args:
        masks: ``[mask, unit]``, True = kept.
        values: one value a mask, ``[mask]``, or one a mask and output, ``[mask, output]``. All
            outputs are decoded together: they share the terms and have a coefficient each.
        decoder: a name of `DECODERS`, or a decoder with options of its own.
        keep: the probability with which the design keeps a unit; the share of kept entries if
            not given.
        max_order: the size of the largest set that may be reported; None leaves it to the decoder.
        design: the `SpexDesign` that made the masks, if one did; some of its masks may be missing.
        seed: the only source of randomness.

    Returns:
        The function, its coefficients in the units of the values. Its notes say how it was found.

    Raises:
        ShapeError: masks or values of the wrong width, length or dtype.
        FailedMasksError: values that are NaN or infinite; drop those rows first.
        BudgetError: fewer masks than the decoder needs; the message names the minimum.
        Refused: an unknown decoder, no units, or a density or order that makes no sense.
    """
    samples = check_samples(masks, values, keep=keep, max_order=max_order, design=design, seed=seed)
    answer = find_decoder(decoder).decode(samples)
    if design is None or samples.groups:
        return answer
    note = "the masks hold no complete group of the design given, which is not used"
    return replace(answer, notes=(*answer.notes, note))


@on_one_thread
def compare(
    masks: Bool[np.ndarray, "mask unit"] | np.ndarray,
    values: Float[np.ndarray, " mask *output"] | np.ndarray,
    *,
    decoders: tuple[str | Decoder, ...] | None = None,
    keep: float | None = None,
    max_order: int | None = None,
    design: SpexDesign | None = None,
    seed: int = 0,
) -> DecoderComparison:
    """Cross-validated R² of decoders, and which of them (or which mean) `automatic` would take.

    ``decode(masks, values, decoder=comparison.chosen)`` then decodes with the choice;
    ``comparison.scores["additive"]`` is the baseline.

    Args:
        masks: ``[mask, unit]``, True = kept.
        values: ``[mask]`` or ``[mask, output]``.
        decoders: the decoders to compare, simplest first; those of `automatic` if not given.
        keep: the probability with which the design keeps a unit; the share of kept entries if
            not given.
        max_order: the size of the largest set that may be reported; None leaves it to the decoders.
        design: the `SpexDesign` that made the masks, if one did.
        seed: the only source of randomness.

    Raises:
        ShapeError, FailedMasksError, BudgetError, Refused: for the same reasons as `decode`.
    """
    samples = check_samples(masks, values, keep=keep, max_order=max_order, design=design, seed=seed)
    if decoders is None:
        return _compare(samples, Automatic().rivals(samples))
    return _compare(samples, tuple(find_decoder(decoder) for decoder in decoders))


def find_decoder(decoder: str | Decoder) -> Decoder:
    """The decoder of a name; a decoder is returned as it is.

    Args:
        decoder: a name of `DECODERS`, or a decoder.

    Raises:
        Refused: a name that is not in `DECODERS`.
    """
    if isinstance(decoder, Decoder):
        return decoder
    if decoder not in DECODERS:
        raise Refused(f"decoder = {decoder!r}: choose one of {', '.join(sorted(DECODERS))}")
    return DECODERS[decoder]
