"""The search: masks are drawn and measured, all or in rounds, and a function recovered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import BudgetError, FailedMasksError
from mechspex.core.finite import finite_rows
from mechspex.core.masks import Stream, all_masks, sample_masks
from mechspex.decoders import Additive, Residual, decode, find_decoder
from mechspex.decoders.decoder import Samples, check_samples
from mechspex.explanation.adaptive_masks import focused_masks, uncertain_sets
from mechspex.explanation.plan import Plan, n_held_out
from mechspex.explanation.timing import say_how_long
from mechspex.recovery.recover import TermTests, recover
from mechspex.recovery.recovery import Recovery
from mechspex.runs.recorded import RecordedValues
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

# How many fresh masks a held-out R² needs to mean anything.
_FEWEST_TEST_MASKS = 30
# Terms that are named while a search goes on.
_NAMED = 5


def exact_search(recorded: RecordedValues, plan: Plan) -> Recovery:
    """Measure all 2^n masks; what follows is exact."""
    recorded.stage = "all masks"
    masks = all_masks(recorded.n_units)
    values = recorded(masks).astype(np.float64)
    failed = int((~finite_rows(values)).sum())
    if failed:
        raise FailedMasksError(
            f"{failed} of all {len(masks)} masks have no finite value; an exact answer needs all, "
            "fewer masks draw random ones"
        )
    _say_decoding(recorded, len(masks))
    return exact_recovery(masks, values, plan.decoder.max_order)


def exact_recovery(
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, "mask output"],
    max_order: int | None = None,
) -> Recovery:
    """What the values under all 2^n masks say, with nothing to score.

    Args:
        masks: each once, in any order.
        values: their values.
        max_order: the largest set of units that is reported; None for no such bound.
    """
    n_units = masks.shape[1]
    decoder = replace(find_decoder("exhaustive"), max_order=max_order)
    function = decode(masks, values, decoder=decoder, keep=0.5)
    # Orthonormal over all masks: the best sum of singles is the expansion cut off after them.
    fourier = function.to_basis("fourier", 0.5)
    additive = SetFunction.from_mapping(
        n_units,
        {
            term: value
            for term, value in zip(fourier.terms, fourier.output_coefficients, strict=True)
            if len(term) <= 1
        },
        basis="fourier",
        keep=0.5,
    )
    mean = values.mean(axis=1)
    r2 = r_squared(mean, function.predict(masks))
    return Recovery(
        function=function,
        additive=additive,
        r2=r2,
        additive_r2=r_squared(mean, additive.predict(masks)),
        r2_interval=(r2, r2),
        n_train=len(masks),
        n_test=0,
        unseen_pairs=0.0,
    )


def random_search(
    recorded: RecordedValues, plan: Plan, n_fresh: int, prior: SetFunction | None = None
) -> Recovery:
    """Decode random masks: in one go, or in doubling rounds up to a target or the last mask.

    How long it will take is said at the start, with the tests on `n_fresh` outputs that follow.
    With a `prior` the decoder is given what that leaves over.
    """
    drawn = _Masks(plan)
    test_masks = fresh_masks(
        drawn.base, plan.keep, plan.seed, n_held_out(len(drawn.base), plan.target_r2)
    )
    recorded.stage = "first masks"
    say_how_long(recorded, plan, drawn.base, test_masks, n_fresh)
    recorded.stage = "held-out masks"
    test = _held_out(recorded, test_masks)
    # Shown beside the progress bar: what SPEX's design needs, before it is measured.
    recorded.stage = "masks" if plan.structure is None else str(plan.structure)
    train = _in_rounds(recorded, plan, drawn, test, prior)
    _say_decoding(recorded, len(train.masks), ", and parts of them for what is sure")
    recovery = recover(
        train.masks,
        train.values,
        test.masks,
        test.values,
        decoder=plan.decoder,
        keep=plan.keep,
        design=plan.structure,
        designed=train.designed,
        prior=prior,
        tests=TermTests(level=plan.tests.level),
        seed=plan.seed,
    )
    return replace(recovery, n_failed=train.n_failed + test.n_failed)


def _in_rounds(
    recorded: RecordedValues,
    plan: Plan,
    drawn: _Masks,
    test: _Measured,
    prior: SetFunction | None,
) -> _Measured:
    """The masks of all rounds, up to the target or the last one."""
    decoder = plan.decoder if prior is None else Residual(plan.decoder, prior)
    sizes = plan.round_sizes
    train = drawn.measure(recorded, sizes[0])
    for size, following in pairwise(sizes):
        samples = train.samples(plan)
        if plan.target_r2 is not None:
            _say_decoding(recorded, samples.n_masks)
            function = decoder.decode(samples)
            reached = r_squared(test.values.mean(axis=1), function.predict(test.masks))
            _say_answer(recorded, samples, function, test)
            if reached >= plan.target_r2:
                break
        if plan.focused:
            drawn.focus(samples, size, test.masks)
        train = drawn.measure(recorded, following)
    return train


def _say_decoding(recorded: RecordedValues, n_masks: int, then: str = "") -> None:
    recorded.say(f"decoding {n_masks:,} masks of {recorded.n_units:,} units{then} …")


def _say_answer(
    recorded: RecordedValues, samples: Samples, function: SetFunction, test: _Measured
) -> None:
    """Say what the masks so far tell: R² on the held-out ones, and the strongest terms."""
    if not recorded.progress:
        return
    truth = test.values.mean(axis=1)
    r2, additive_r2 = (
        r_squared(truth, answer.predict(test.masks))
        for answer in (function, Additive().decode(samples))
    )
    effects = {term: effect for term, effect in function.ablated_effects().items() if term}
    strongest = sorted(effects, key=lambda term: -abs(effects[term]))[:_NAMED]
    named = ", ".join(f"{recorded.units.label(term)} {effects[term]:+.2f}" for term in strongest)
    recorded.say(
        f"{samples.n_masks:,} masks: held-out R² {r2:.3f} (additive {additive_r2:.3f}); "
        f"strongest by these {named}"
    )


@dataclass(frozen=True)
class _Measured:
    """Masks with finite values, which of them are drawn at `keep`, and how many had none."""

    masks: Bool[np.ndarray, "mask unit"]
    values: Float[np.ndarray, "mask output"]
    designed: Bool[np.ndarray, " mask"]
    n_failed: int

    @classmethod
    def of(
        cls,
        recorded: RecordedValues,
        masks: Bool[np.ndarray, "mask unit"],
        designed: Bool[np.ndarray, " mask"],
    ) -> _Measured:
        values = recorded(masks).astype(np.float64)
        finite = finite_rows(values)
        return cls(masks[finite], values[finite], designed[finite], int((~finite).sum()))

    def samples(self, plan: Plan) -> Samples:
        """What a decoder is given."""
        return check_samples(
            self.masks,
            self.values,
            keep=plan.keep,
            max_order=plan.decoder.max_order,
            seed=plan.seed,
        )


class _Masks:
    """The masks of a search: those of the design, and those drawn where it is least certain."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        structure = plan.structure
        drawn = None if structure is None else structure.masks
        self.base = (
            plan.masks.draw(plan.n_units, plan.n_masks, plan.seed) if drawn is None else drawn
        )
        self.focused = self.base[:0]

    def measure(self, recorded: RecordedValues, size: int) -> _Measured:
        """The first `size` masks, in the order design, focused.

        Raises:
            FailedMasksError: fewer than the decoder needs have a finite value.
        """
        masks = np.concatenate([self.base[: size - len(self.focused)], self.focused])
        designed = self._plan.masks.at_keep(size) & (np.arange(size) < size - len(self.focused))
        measured = _Measured.of(recorded, masks, designed)
        needed = self._plan.decoder.minimum_masks(recorded.n_units)
        if len(measured.masks) < needed:
            raise FailedMasksError(
                f"{measured.n_failed} of {size} masks have no finite value; the "
                f"{len(measured.masks)} others are fewer than the {needed} that the decoder needs"
            )
        return measured

    def focus(self, samples: Samples, size: int, held_out: Bool[np.ndarray, "test unit"]) -> None:
        """Half of the masks that double `size`, around the sets that are least certain.

        Of few units some would be among those `held_out`; the design's own come in their place.
        """
        sets = uncertain_sets(samples)
        room = (len(self.base) - size) // 2
        if not sets or not room:
            return
        new = focused_masks(
            samples.n_units,
            min(size // 2, room),
            sets,
            keep=self._plan.keep,
            seed=(self._plan.seed, 5, size),
        )
        scored = {mask.tobytes() for mask in held_out}
        unseen = [mask.tobytes() not in scored for mask in new]
        self.focused = np.concatenate([self.focused, new[unseen]])


def _held_out(recorded: RecordedValues, masks: Bool[np.ndarray, "mask unit"]) -> _Measured:
    """The masks that score an answer, measured.

    Raises:
        FailedMasksError: none of them has a finite value.
    """
    test = _Measured.of(recorded, masks, np.ones(len(masks), dtype=bool))
    if not len(test.masks):
        raise FailedMasksError(
            f"{len(masks)} of {len(masks)} held-out masks have no finite value; mend the value "
            "function"
        )
    return test


def fresh_masks(
    masks: Bool[np.ndarray, "mask unit"], keep: float, seed: int, wanted: int
) -> Bool[np.ndarray, "test unit"]:
    """So many masks of the same design, none of them among `masks`."""
    n_masks, n_units = masks.shape
    seen = {mask.tobytes() for mask in masks}
    drawn = sample_masks(n_units, 10 * wanted, keep=keep, seed=(seed, Stream.HELD_OUT))
    fresh = np.array([mask for mask in drawn if mask.tobytes() not in seen], dtype=bool)
    if len(fresh) < _FEWEST_TEST_MASKS:
        raise BudgetError(
            f"only {len(fresh)} masks of {n_units} units kept at {keep} are left to score an "
            f"answer from {n_masks} masks; measure all with n_masks = {2**n_units}, or lower keep"
        )
    return fresh[:wanted]
