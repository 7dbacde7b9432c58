"""The search: masks are drawn and measured, all or in rounds, and a function recovered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.finite import finite_rows
from mechspex.core.masks import Stream, all_masks, sample_masks
from mechspex.decoders import Decoder, Residual, decode
from mechspex.decoders.decoder import Samples, check_samples
from mechspex.decoders.spex.design import SpexDesign
from mechspex.errors import BudgetError, FailedMasksError
from mechspex.explanation.adaptive_masks import focused_masks, uncertain_sets
from mechspex.recovery.recover import recover
from mechspex.recovery.recovery import Recovery
from mechspex.runs.recorded import RecordedValues
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

# Masks of the first of doubling rounds.
_FIRST_ROUND = 250
# How many fresh masks a held-out R² needs to mean anything.
_FEWEST_TEST_MASKS = 30


def exact_search(recorded: RecordedValues, decoder: Decoder, settings: dict[str, Any]) -> Recovery:
    """Measure all 2^n masks; what follows is exact."""
    recorded.stage = "all masks"
    masks = all_masks(recorded.n_units)
    values = recorded(masks).astype(np.float64)
    failed = int((~finite_rows(values)).sum())
    if failed:
        raise FailedMasksError(
            f"{failed} of all {len(masks)} masks have no finite value; an exact answer needs all, "
            "a smaller budget draws random ones"
        )
    seed, max_order = settings["seed"], settings["max_order"]
    function = decode(masks, values, decoder=decoder, keep=0.5, max_order=max_order, seed=seed)
    # Orthonormal over all masks: the best sum of singles is the expansion cut off after them.
    fourier = function.to_basis("fourier", 0.5)
    additive = SetFunction.from_mapping(
        recorded.n_units,
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
    )


def random_search(
    recorded: RecordedValues,
    decoder: Decoder,
    settings: dict[str, Any],
    prior: SetFunction | None = None,
) -> Recovery:
    """Decode random masks: in one go, or in doubling rounds up to a target or the budget.

    With a `prior` the decoder is given what that leaves over.
    """
    keep, target = settings["keep"], settings["target_r2"]
    options: dict[str, Any] = {name: settings[name] for name in ("keep", "max_order", "seed")}
    needed = decoder.minimum_masks(recorded.n_units)
    drawn = _Masks(recorded.n_units, settings)
    recorded.stage = "held-out masks"
    test_masks = _fresh_masks(drawn.base, keep, settings["seed"])
    test_values = recorded(test_masks).astype(np.float64)
    finite = finite_rows(test_values)
    test_masks, test_values, test_failed = test_masks[finite], test_values[finite], (~finite).sum()
    if not len(test_values):
        raise FailedMasksError(
            f"{test_failed} of {test_failed} held-out masks have no finite value; mend the value "
            "function"
        )
    # Shown beside the progress bar: what SPEX's design needs, before it is measured.
    recorded.stage = "masks" if drawn.design is None else settings["design"]
    sizes = _round_sizes(settings, needed)
    train = drawn.measure(recorded, sizes[0], needed)
    for size, following in pairwise(sizes):
        if target is not None:
            tried = decoder if prior is None else Residual(decoder, prior)
            function = decode(train.masks, train.values, decoder=tried, **options)
            if r_squared(test_values.mean(axis=1), function.predict(test_masks)) >= target:
                break
        if settings["adaptive"]:
            drawn.focus(check_samples(train.masks, train.values, **options), size)
        train = drawn.measure(recorded, following, needed)
    recovery = recover(
        train.masks,
        train.values,
        test_masks,
        test_values,
        decoder=decoder,
        design=drawn.design,
        designed=train.designed,
        prior=prior,
        level=settings["level"],
        **options,
    )
    return replace(recovery, n_failed=train.n_failed + int(test_failed))


def _round_sizes(settings: dict[str, Any], needed: int) -> list[int]:
    """Masks in all after each round; a round doubles them."""
    budget = settings["budget"]
    if settings["target_r2"] is None and not settings["adaptive"]:
        return [budget]
    sizes = [min(budget, max(_FIRST_ROUND, needed))]
    while sizes[-1] < budget:
        sizes.append(min(budget, 2 * sizes[-1]))
    return sizes


@dataclass(frozen=True)
class _Measured:
    """Masks with finite values, which of them are drawn at `keep`, and how many had none."""

    masks: Bool[np.ndarray, "mask unit"]
    values: Float[np.ndarray, "mask output"]
    designed: Bool[np.ndarray, " mask"]
    n_failed: int


class _Masks:
    """The masks of a search: those of the design, and those drawn where it is least certain."""

    def __init__(self, n_units: int, settings: dict[str, Any]) -> None:
        budget, self._keep, self._seed = (settings[k] for k in ("budget", "keep", "seed"))
        self._mixed = settings["design"] == "mixed"
        self.design = None
        if settings["design"] in ("random", "mixed"):
            kind = "mixed" if self._mixed else "biased"
            self.base = sample_masks(n_units, budget, keep=self._keep, design=kind, seed=self._seed)
        else:
            self.design = SpexDesign(n_units, budget, seed=self._seed)
            self.base = self.design.masks
        self.focused = self.base[:0]

    def measure(self, recorded: RecordedValues, size: int, needed: int) -> _Measured:
        """The first `size` masks, in the order design, focused.

        Raises:
            FailedMasksError: fewer than `needed` have a finite value.
        """
        masks = np.concatenate([self.base[: size - len(self.focused)], self.focused])
        values = recorded(masks).astype(np.float64)
        finite = finite_rows(values)
        n_finite = int(finite.sum())
        if n_finite < needed:
            raise FailedMasksError(
                f"{size - n_finite} of {size} masks have no finite value; the {n_finite} others "
                f"are fewer than the {needed} that the decoder needs"
            )
        designed = np.arange(size) < size - len(self.focused)
        if self._mixed:
            designed &= np.arange(size) % 2 == 0
        return _Measured(masks[finite], values[finite], designed[finite], size - n_finite)

    def focus(self, samples: Samples, size: int) -> None:
        """Half of the masks that double `size`, around the sets that are least certain."""
        sets = uncertain_sets(samples)
        room = (len(self.base) - size) // 2
        if not sets or not room:
            return
        new = focused_masks(
            samples.n_units,
            min(size // 2, room),
            sets,
            keep=self._keep,
            seed=(self._seed, 5, size),
        )
        self.focused = np.concatenate([self.focused, new])


def _fresh_masks(
    masks: Bool[np.ndarray, "mask unit"], keep: float, seed: int
) -> Bool[np.ndarray, "test unit"]:
    """Masks of the same design, none of them among `masks`."""
    n_masks, n_units = masks.shape
    wanted = max(100, n_masks // 5)
    seen = {mask.tobytes() for mask in masks}
    drawn = sample_masks(n_units, 10 * wanted, keep=keep, seed=(seed, Stream.HELD_OUT))
    fresh = np.array([mask for mask in drawn if mask.tobytes() not in seen], dtype=bool)
    if len(fresh) < _FEWEST_TEST_MASKS:
        raise BudgetError(
            f"only {len(fresh)} masks of {n_units} units kept at {keep} are left to score an "
            f"answer from {n_masks} masks; measure all with budget = {2**n_units}, or lower keep"
        )
    return fresh[:wanted]
