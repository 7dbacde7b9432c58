"""Recovery: decode, and say how well the answer predicts and how sure each term is."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mechspex.core.statistics import standard_error
from mechspex.decoders import Additive, Automatic, Decoder, Kernel, Residual, decode, find_decoder
from mechspex.decoders.automatic import compare
from mechspex.decoders.cross_validation import cross_fit
from mechspex.decoders.decoder import Samples, check_samples
from mechspex.decoders.spex.design import SpexDesign
from mechspex.errors import Refused, ShapeError
from mechspex.recovery.evidence import Evidence, gather_evidence
from mechspex.recovery.monotone_link import FEWEST_MASKS, monotone_link
from mechspex.recovery.recovery import _PERFECT, MoreMasks, Recovery
from mechspex.set_functions.r_squared import r2_interval, r_squared
from mechspex.set_functions.set_function import SetFunction

# Parts of the masks that a cross-fitted answer leaves out in turn.
_PARTS = 3

# More masks are worth a notice if twice as many would explain so much of what is left over.
_WORTH_IT = 0.2


def recover(
    masks: np.ndarray,
    values: np.ndarray,
    test_masks: np.ndarray,
    test_values: np.ndarray,
    *,
    decoder: str | Decoder = "automatic",
    keep: float | None = None,
    max_order: int | None = None,
    design: SpexDesign | None = None,
    designed: np.ndarray | None = None,
    prior: SetFunction | None = None,
    level: float = 0.05,
    resamples: int = 10,
    seed: int = 0,
) -> Recovery:
    """Decode masks and values, score the answer on test masks, and say how sure each term is.

    What is said of single terms rests on masks that are independent draws at `keep`, or SPEX's.

    Args:
        masks, values, decoder, keep, max_order, design, seed: as for `decode`.
        test_masks, test_values: of the same design, not among `masks`.
        designed: bool ``[mask]``, which masks are drawn with each unit kept with probability
            `keep`; all of them if not given. The others are decoded too, and left out where the
            design is what the mathematics rests on.
        prior: what is known of the function beforehand, such as `Candidates.function`; the decoder
            is given what it leaves over (see `Residual`). ``automatic`` compares additive and
            kernel with it and all its decoders without it.
        level: the false discovery rate of `Recovery.evidence`.
        resamples: how many random halves of the masks pursuit selects terms from anew.

    Raises:
        ShapeError: test masks or values that do not go with the others.
        Refused: a level outside (0, 1); and what `decode` raises.
    """
    if not 0 < level < 1:
        raise Refused(f"level = {level}: give a probability strictly between 0 and 1")
    if resamples < 0:
        raise Refused(f"resamples = {resamples}: give a whole number from 0 up")
    options: dict[str, Any] = {"keep": keep, "max_order": max_order, "seed": seed}
    samples = check_samples(masks, values, design=design, **options)
    test = check_samples(test_masks, test_values, keep=samples.keep, max_order=max_order, seed=seed)
    if test.masks.shape[1] != samples.n_units or test.values.shape[1] != samples.values.shape[1]:
        raise ShapeError(
            f"test masks {list(test.masks.shape)} and values {list(test.values.shape)} do not go "
            f"with masks {list(samples.masks.shape)} and values {list(samples.values.shape)}; "
            "give the same units and outputs"
        )
    chosen = find_decoder(decoder)
    chosen.check_budget(samples)
    chosen, function = _decoded(samples, chosen, prior)
    additive = decode(masks, values, decoder="additive", **options)
    truth = test.values.mean(axis=1)
    predicted = function.predict(test.masks)
    constant = len(function) == 1
    rows = np.arange(samples.n_masks) if designed is None else np.flatnonzero(designed)
    return Recovery(
        function=function,
        additive=additive,
        r2=r_squared(truth, predicted),
        additive_r2=r_squared(truth, additive.predict(test.masks)),
        r2_interval=r2_interval(truth, predicted),
        n_train=samples.n_masks,
        n_test=test.n_masks,
        evidence=None if constant else _evidence(samples, rows, chosen, function, level, resamples),
        link=monotone_link(samples.masks[rows], samples.values[rows], keep=samples.keep, seed=seed)
        if len(rows) >= FEWEST_MASKS and not constant
        else None,
        more=None if constant else _more_masks(samples, chosen, truth, predicted, test.masks),
    )


def _decoded(
    samples: Samples, decoder: Decoder, prior: SetFunction | None
) -> tuple[Decoder, SetFunction]:
    """The answer, and the decoder that gives it: of `automatic` what it chose on all masks, with
    which parts of them are decoded as well."""
    if isinstance(decoder, Automatic) and samples.n_units > 1:
        rivals = decoder.rivals(samples)
        if prior is not None:
            rivals += tuple(Residual(rival, prior) for rival in (Additive(), Kernel()))
        comparison = compare(samples, rivals)
        return comparison.chosen, comparison.decode(samples)
    chosen = decoder if prior is None else Residual(decoder, prior)
    return chosen, chosen.decode(samples)


def _evidence(
    samples: Samples,
    rows: Int[np.ndarray, " row"],
    decoder: Decoder,
    function: SetFunction,
    level: float,
    resamples: int,
) -> Evidence | None:
    n_left = samples.n_masks - -(-samples.n_masks // _PARTS)
    lone_group = decoder.needs_design and len(samples.groups) < 2
    if lone_group or n_left < decoder.minimum_masks(samples.n_units):
        return None
    without, residual = cross_fit(samples, decoder, _PARTS)
    return gather_evidence(
        samples.rows(rows),
        function,
        without,
        residual[rows],
        level=level,
        resamples=resamples,
    )


def _more_masks(
    samples: Samples,
    decoder: Decoder,
    truth: Float[np.ndarray, " mask"],
    predicted: Float[np.ndarray, " mask"],
    test_masks: np.ndarray,
) -> MoreMasks | None:
    r2 = r_squared(truth, predicted)
    n_half = samples.n_masks // 2
    # Half of SPEX's masks are another design.
    too_few = n_half < decoder.minimum_masks(samples.n_units) or len(truth) < 2
    if not r2 < _PERFECT or decoder.needs_design or too_few:
        return None
    half = np.random.default_rng((samples.seed, 3)).permutation(samples.n_masks)[:n_half]
    from_half = decoder.decode(samples.rows(half)).predict(test_masks)
    gain = (truth - from_half) ** 2 - (truth - predicted) ** 2
    sure = bool(gain.mean() > 2 * standard_error(gain))
    law = MoreMasks(samples.n_masks, r_squared(truth, from_half), r2, pays=False)
    if not sure:
        return law
    worth = (law.r2_of_twice - r2) > _WORTH_IT * (1 - r2)
    return MoreMasks(law.n_masks, law.r2_of_half, r2, pays=worth)
