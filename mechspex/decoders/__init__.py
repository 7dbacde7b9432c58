"""Decoders: from masks and values to a sparse set function."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mechspex.decoders.additive import Additive
from mechspex.decoders.automatic import Automatic, Comparison, Mean
from mechspex.decoders.automatic import compare as _compare
from mechspex.decoders.decoder import Decoder, check_samples
from mechspex.decoders.exhaustive import Exhaustive
from mechspex.decoders.kernel import Kernel
from mechspex.decoders.proxyspex import ProxySpex
from mechspex.decoders.pursuit import Pursuit
from mechspex.decoders.residual import Residual
from mechspex.decoders.spex.decoder import Spex
from mechspex.decoders.spex.design import SpexDesign
from mechspex.errors import Refused
from mechspex.set_functions.set_function import SetFunction

__all__ = [
    "DECODERS",
    "Additive",
    "Automatic",
    "Comparison",
    "Decoder",
    "Exhaustive",
    "Kernel",
    "Mean",
    "ProxySpex",
    "Pursuit",
    "Residual",
    "Spex",
    "compare",
    "decode",
    "find_decoder",
]

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


def decode(
    masks: np.ndarray,
    values: np.ndarray,
    *,
    decoder: str | Decoder = "automatic",
    keep: float | None = None,
    max_order: int | None = None,
    design: SpexDesign | None = None,
    seed: int = 0,
) -> SetFunction:
    """Recover the few sets of units that explain the values of masked models.

    Args:
        masks: bool ``[mask, unit]``, True = kept.
        values: one a mask, ``[mask]``, or one a mask and output, ``[mask, output]``; outputs are
            decoded together, over one support, and keep a coefficient each.
        decoder: a name of `DECODERS`, or a decoder with options of its own.
        keep: the probability with which the design keeps a unit; the share of kept entries if
            not given.
        max_order: the largest set that may be reported; None leaves it to the decoder.
        design: of the masks, if they are those of `SpexDesign` (some may be missing).
        seed: the only source of randomness.

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


def compare(
    masks: np.ndarray,
    values: np.ndarray,
    *,
    decoders: tuple[str | Decoder, ...] | None = None,
    keep: float | None = None,
    max_order: int | None = None,
    design: SpexDesign | None = None,
    seed: int = 0,
) -> Comparison:
    """Cross-validated R² of decoders, and which of them (or which mean) `automatic` would take.

    ``decode(masks, values, decoder=comparison.chosen)`` then decodes with the choice;
    ``comparison.scores["additive"]`` is the baseline. `decoders` are those of `automatic` if not
    given; the other arguments and the errors are those of `decode`.
    """
    samples = check_samples(masks, values, keep=keep, max_order=max_order, design=design, seed=seed)
    if decoders is None:
        return _compare(samples, Automatic().rivals(samples))
    return _compare(samples, tuple(find_decoder(decoder) for decoder in decoders))


def find_decoder(decoder: str | Decoder) -> Decoder:
    """The decoder of that name; a decoder is returned as it is.

    Raises:
        Refused: a name that is not in `DECODERS`.
    """
    if isinstance(decoder, Decoder):
        return decoder
    if decoder not in DECODERS:
        raise Refused(f"decoder = {decoder!r}: choose one of {', '.join(sorted(DECODERS))}")
    return DECODERS[decoder]
