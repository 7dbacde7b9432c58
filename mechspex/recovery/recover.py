"""Recovery: decode, and say how well the answer predicts and how sure each term is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mechspex.core.checks import SEED, Only
from mechspex.core.doors import door
from mechspex.core.errors import Refused, ShapeError
from mechspex.core.masks import Stream, unseen_pairs
from mechspex.core.old_keywords import takes_old
from mechspex.core.statistics import standard_error
from mechspex.core.threads import on_one_thread
from mechspex.decoders import (
    Additive,
    Automatic,
    Decoder,
    Kernel,
    Residual,
    as_decoder,
    find_decoder,
)
from mechspex.decoders.automatic import compare
from mechspex.decoders.cross_validation import cross_fit
from mechspex.decoders.decoder import Samples, check_samples
from mechspex.decoders.spex.design import SpexDesign
from mechspex.recovery.evidence import Evidence, gather_evidence
from mechspex.recovery.monotone_link import FEWEST_MASKS, monotone_link
from mechspex.recovery.recovery import _PERFECT, MoreMasks, Recovery
from mechspex.set_functions.r_squared import r2_interval, r_squared
from mechspex.set_functions.set_function import SetFunction

# Parts of the masks that a cross-fitted answer leaves out in turn.
_PARTS = 3

# More masks are worth a notice if twice as many would explain so much of what is left over.
_WORTH_IT = 0.2


@dataclass(frozen=True)
class TermTests:
    """How the terms of a recovered function are tested on the masks it was recovered from.

    Attributes:
        level: the false discovery rate of `Recovery.evidence`.
        resamples: how many random halves of the masks pursuit selects terms from anew.

    Raises:
        Refused: a level outside (0, 1), or a negative number of halves.
    """

    level: float = 0.05
    resamples: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise Refused(f"level = {self.level}: give a probability strictly between 0 and 1")
        if self.resamples < 0:
            raise Refused(f"resamples = {self.resamples}: give a whole number from 0 up")


def _renew(given: dict[str, Any], old: dict[str, Any]) -> None:
    """Put the old keywords of `recover` into its decoder and tests."""
    if (max_order := old.pop("max_order", None)) is not None:
        chosen = find_decoder(given.get("decoder", "automatic"))
        given["decoder"] = replace(chosen, max_order=max_order)
    given["tests"] = replace(given.get("tests") or TermTests(), **old)


@takes_old(
    {
        "max_order": "decoder=Pursuit(max_order=…), or that of another decoder",
        "level": "tests=TermTests(level=…)",
        "resamples": "tests=TermTests(resamples=…)",
    },
    _renew,
)
@door(
    decoder=as_decoder,
    tests=Only((TermTests,), "TermTests(level=…, resamples=…)"),
    seed=SEED,
)
@on_one_thread
def recover(
    masks: Bool[np.ndarray, "mask unit"] | np.ndarray,
    values: Float[np.ndarray, " mask *output"] | np.ndarray,
    test_masks: Bool[np.ndarray, "test unit"] | np.ndarray,
    test_values: Float[np.ndarray, " test *output"] | np.ndarray,
    *,
    decoder: str | Decoder = "automatic",
    keep: float | None = None,
    design: SpexDesign | None = None,
    designed: np.ndarray | None = None,
    prior: SetFunction | None = None,
    tests: TermTests | None = None,
    seed: int = 0,
) -> Recovery:
    """Decode masks and values, score the answer on test masks, and say how sure each term is.

    Evidence for single terms and the test for a monotone link need masks of a known design: each
    unit kept independently with probability `keep`, or SPEX's design.

    >>> import mechspex as mx
    >>> def values(masks):
    ...     return 1.0 + 2.0 * masks[:, 1] - 3.0 * (masks[:, 4] & masks[:, 9])
    >>> masks, test_masks = mx.sample_masks(12, 300), mx.sample_masks(12, 100, seed=1)
    >>> recovery = mx.recover(
    ...     masks, values(masks), test_masks, values(test_masks), decoder="pursuit"
    ... )
    >>> round(recovery.r2, 3), round(recovery.additive_r2, 3), recovery.evidence.interactions
    (1.0, 0.773, ((4, 9),))

    Args:
        masks: the masks to decode, ``[mask, unit]``, True = kept.
        values: their values, ``[mask]`` or ``[mask, output]``.
        test_masks: masks of the same design that are not among `masks`; R² is measured on them.
        test_values: their values.
        decoder: a name of `mechspex.decoders.DECODERS`, or a decoder with options of its own.
        keep: the probability with which the design keeps a unit; the share of kept entries if
            not given.
        design: the `SpexDesign` that made the masks, if one did.
        designed: which masks are independent draws at `keep` (or SPEX's); all if not given. The
            others are decoded too, but evidence and the link do not rest on them.
        prior: what is known of the function beforehand, such as `Candidates.function`. The decoder
            is given the values less the prior (see `Residual`). ``automatic`` compares additive
            and kernel with the prior, and all its decoders without it.
        tests: at which false discovery rate terms are tested, 0.05 if not given, and how often they
            are selected anew.
        seed: the only source of randomness.

    Raises:
        ShapeError: test masks or values that do not go with the others.
        ShapeError, FailedMasksError, BudgetError, Refused: for the same reasons as `decode`.
    """
    tests = tests or TermTests()
    chosen = find_decoder(decoder)
    options: dict[str, Any] = {"max_order": chosen.max_order, "seed": seed}
    samples = check_samples(masks, values, design=design, keep=keep, **options)
    test = check_samples(test_masks, test_values, keep=samples.keep, **options)
    _check_same_shape(samples, test)
    chosen.check_budget(samples)
    chosen, function, decoder_scores = _decoded(samples, chosen, prior)
    additive = Additive().decode(replace(samples, groups=()))
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
        evidence=None if constant else _evidence(samples, rows, chosen, function, tests),
        link=monotone_link(samples.masks[rows], samples.values[rows], keep=samples.keep, seed=seed)
        if len(rows) >= FEWEST_MASKS and not constant
        else None,
        decoder_scores=decoder_scores,
        unseen_pairs=unseen_pairs(samples.masks),
        more=None if constant else _more_masks(samples, chosen, truth, predicted, test.masks),
    )


def _check_same_shape(samples: Samples, test: Samples) -> None:
    if test.n_units != samples.n_units or test.values.shape[1] != samples.values.shape[1]:
        raise ShapeError(
            f"test masks {list(test.masks.shape)} and values {list(test.values.shape)} do not go "
            f"with masks {list(samples.masks.shape)} and values {list(samples.values.shape)}; "
            "give the same units and outputs"
        )


def _decoded(
    samples: Samples, decoder: Decoder, prior: SetFunction | None
) -> tuple[Decoder, SetFunction, dict[str, float]]:
    """The decoder, its answer, and the cross-validated R² of all that were compared.

    For ``automatic`` it is the decoder chosen on all masks; parts of the masks are decoded with it
    as well.
    """
    if isinstance(decoder, Automatic) and samples.n_units > 1:
        rivals = decoder.rivals(samples)
        if prior is not None:
            rivals += tuple(Residual(rival, prior) for rival in (Additive(), Kernel()))
        comparison = compare(samples, rivals)
        return comparison.chosen, comparison.decode(samples), comparison.scores
    chosen = decoder if prior is None else Residual(decoder, prior)
    return chosen, chosen.decode(samples), {}


def _evidence(
    samples: Samples,
    rows: Int[np.ndarray, " row"],
    decoder: Decoder,
    function: SetFunction,
    tests: TermTests,
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
        level=tests.level,
        resamples=tests.resamples,
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
    half = np.random.default_rng((samples.seed, Stream.HALF)).permutation(samples.n_masks)[:n_half]
    from_half = decoder.decode(samples.rows(half)).predict(test_masks)
    gain = (truth - from_half) ** 2 - (truth - predicted) ** 2
    sure = bool(gain.mean() > 2 * standard_error(gain))
    law = MoreMasks(samples.n_masks, r_squared(truth, from_half), r2, pays=False)
    if not sure:
        return law
    worth = (law.r2_of_twice - r2) > _WORTH_IT * (1 - r2)
    return MoreMasks(law.n_masks, law.r2_of_half, r2, pays=worth)
