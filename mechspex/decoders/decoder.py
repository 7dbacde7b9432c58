"""What every decoder is: masks and values in, a sparse set function out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from mechspex.core.errors import BudgetError, FailedMasksError, Refused, ShapeError
from mechspex.core.finite import finite_rows
from mechspex.core.masks import check_masks
from mechspex.core.units import Term
from mechspex.decoders.spex.design import AliasedGroup, SpexDesign
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.set_function import SetFunction

# Rows of masks that become floats at once.
_ROWS = 256
# A spread of the values below this share of the largest |value| is rounding, not signal.
_ROUNDING_OF_VALUES = 1e-12
# What one mask's values may differ by, as a share of their standard deviation over all masks, if it
# was measured twice: batches round.
_ROUNDING_OF_BATCHES = 1e-4


@dataclass(frozen=True)
class Samples:
    """Checked training data.

    Attributes:
        masks: True = kept.
        values: one value a mask and output.
        keep: the probability with which the design keeps a unit, the p of the Fourier basis.
        max_order: the size of the largest set a decoder may report; None leaves it to the decoder.
        seed: the only source of randomness.
        groups: the groups of SPEX's design that are complete among the masks; none for masks of
            another design.
    """

    masks: Bool[np.ndarray, "mask unit"]
    values: Float[np.ndarray, "mask output"]
    keep: float
    max_order: int | None
    seed: int
    groups: tuple[AliasedGroup, ...] = ()

    @property
    def n_masks(self) -> int:
        return self.masks.shape[0]

    @property
    def n_units(self) -> int:
        return self.masks.shape[1]

    def rows(self, chosen: np.ndarray) -> Samples:
        """The same problem with some of the masks.

        Args:
            chosen: the row numbers of these masks.
        """
        new_row_of = np.full(self.n_masks, -1)
        new_row_of[chosen] = np.arange(len(chosen))
        restricted = (group.restricted(new_row_of) for group in self.groups)
        groups = tuple(group for group in restricted if group is not None)
        return replace(self, masks=self.masks[chosen], values=self.values[chosen], groups=groups)

    @property
    def blocks(self) -> Int[np.ndarray, " mask"]:
        """For each mask the number of its block; blocks were drawn independently of each other.

        A random mask is a block of its own. In SPEX's design the masks of one delay are a block:
        they form one affine space.
        """
        numbers = np.arange(self.n_masks)
        for group in self.groups:
            numbers[group.rows] = group.rows[:, :1]
        return np.unique(numbers, return_inverse=True)[1]

    @property
    def first_rows(self) -> Int[np.ndarray, " mask"]:
        """For each mask the first row that holds the same mask: its own where none repeats."""
        packed = np.packbits(self.masks, axis=1)
        _, first, group = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        return first[group.ravel()]

    @property
    def distinct(self) -> Samples:
        """The same problem with every mask once, as a value that is drawn again says nothing new.

        Few units have few masks: of 1,000 random ones of ten units kept at 0.9 some 120 differ.
        Unchanged where the values of a mask differ, as other units move them, and in SPEX's design.
        """
        first = np.unique(self.first_rows)
        if self.groups or len(first) == self.n_masks:
            return self
        apart = np.abs(self.values - self.values[self.first_rows]).max(axis=0)
        if (apart > _ROUNDING_OF_BATCHES * self.values.std(axis=0)).any():
            return self
        return self.rows(first)

    def among(self, units: Int[np.ndarray, " unit"]) -> Samples:
        """The same problem over some of the units, as if there were no others.

        Args:
            units: the columns of these units.
        """
        return replace(self, masks=np.ascontiguousarray(self.masks[:, units]), groups=())

    def strongest_units(self, most: int) -> Int[np.ndarray, " unit"]:
        """The units that correlate most with the values, in ascending order.

        Args:
            most: how many units.
        """
        values = (self.values - self.values.mean(axis=0)).astype(np.float32)
        moment = np.zeros((self.n_units, values.shape[1]))
        for start in range(0, self.n_masks, _ROWS):
            block = slice(start, start + _ROWS)
            moment += self.masks[block].T.astype(np.float32) @ values[block]
        share = self.masks.mean(axis=0)
        variances = share * (1 - share)
        strengths = (moment**2).sum(axis=1) / np.where(variances > 0, variances, np.inf)
        return np.sort(np.argsort(-strengths, kind="stable")[:most])

    def order_up_to(self, largest: int) -> int:
        """`largest`, or `max_order` or the number of units if that is smaller."""
        return min(largest, self.n_units, self.max_order or largest)

    def function(
        self,
        terms: Mapping[Term, Float[np.ndarray, " output"]],
        *,
        basis: Basis = "fourier",
        notes: tuple[str, ...] = (),
    ) -> SetFunction:
        """A set function of these units.

        Args:
            terms: {term: coefficient of each output}.
            basis: the basis of the coefficients; ``fourier`` is that of this design.
            notes: remarks on how the function was found.
        """
        return SetFunction.from_mapping(
            self.n_units, terms, basis=basis, keep=self.keep, notes=notes
        )


@dataclass(frozen=True, repr=False)
class Decoder(ABC):
    """An algorithm with its options; subclasses supply `name`, `minimum_masks` and `fit`.

    Attributes:
        max_order: the largest set of units that is reported; None leaves it to the samples, or to
            the decoder.
        name: the decoder's name in `DECODERS`, in notes and in scores.
        needs_design: whether the decoder reads the masks of one design as a whole (SPEX's, or all
            2^n masks), so that a random part of them is of no use.
        most_units: the most units that are fitted. With more, the units that correlate most with
            the values are fitted (sure independence screening, Fan & Lv 2008) and a note says so.
            None for no such bound.
    """

    name: ClassVar[str]
    needs_design: ClassVar[bool] = False
    most_units: ClassVar[int | None] = None

    max_order: int | None = field(default=None, kw_only=True, repr=False)

    @abstractmethod
    def minimum_masks(self, n_units: int) -> int:
        """The fewest masks with which this decoder can say anything.

        Args:
            n_units: the number of units.
        """

    @abstractmethod
    def fit(self, samples: Samples) -> SetFunction:
        """Recover a function; `decode` calls this where there is something to recover.

        Args:
            samples: checked samples of at least two units, whose values are not constant.
        """

    def check_budget(self, samples: Samples) -> None:
        """Refuse fewer masks than `minimum_masks`.

        Args:
            samples: the samples that are to be decoded.

        Raises:
            BudgetError: names the minimum.
        """
        minimum = self.minimum_masks(samples.n_units)
        if samples.n_masks < minimum:
            raise BudgetError(
                f"{samples.n_masks} masks of {samples.n_units} units, decoder {self.name!r} needs "
                f"at least {minimum}; measure {minimum - samples.n_masks} more"
            )

    def decode(self, samples: Samples) -> SetFunction:
        """Recover a function; with one unit, or constant values, every decoder gives the same.

        Args:
            samples: checked samples.

        Raises:
            BudgetError: fewer masks than `minimum_masks`.
        """
        if self.max_order is not None:
            samples = replace(samples, max_order=self.max_order)
        if samples.n_units == 1:
            return _exact_for_one_unit(samples)
        self.check_budget(samples)
        spread = np.ptp(samples.values, axis=0).max()
        if spread <= _ROUNDING_OF_VALUES * np.abs(samples.values).max():
            note = f"{self.name}: all values are equal, so there is nothing to explain"
            return samples.function({(): samples.values[0]}, notes=(note,))
        most = self.most_units
        if most is None or samples.n_units <= most:
            return self.fit(samples)
        units = samples.strongest_units(most)
        answer = self.fit(samples.among(units)).over(units.tolist(), samples.n_units)
        note = (
            f"{self.name}: fitted to the {most:,} of {samples.n_units:,} units that correlate most "
            "with the values"
        )
        return replace(answer, notes=(*answer.notes, note))

    def predict_held_out(
        self, samples: Samples, splits: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[Float[np.ndarray, "held_out output"], Decoder]:
        """What is predicted for each fold's test masks from the fold's training masks.

        Args:
            samples: the masks and values.
            splits: (training rows, test rows) of each fold.

        Returns:
            The predictions, and this decoder with the options that the folds have settled.
        """
        predicted = [
            self.decode(samples.rows(train)).predict_outputs(samples.masks[test])
            for train, test in splits
        ]
        return np.concatenate(predicted), self

    def __repr__(self) -> str:
        options = [f for f in fields(self) if f.repr or getattr(self, f.name) is not None]
        shown = ", ".join(f"{option.name}={getattr(self, option.name)!r}" for option in options)
        return f"{type(self).__qualname__}({shown})"


def check_samples(
    masks: object,
    values: object,
    *,
    keep: float | None,
    max_order: int | None,
    seed: int,
    design: SpexDesign | None = None,
) -> Samples:
    """The samples that decoders work on, once masks and values are checked.

    Args:
        masks: bool ``[mask, unit]``, True = kept.
        values: real numbers ``[mask]`` or ``[mask, output]``.
        keep: the probability with which the design keeps a unit; None for the share of kept
            entries.
        max_order: the size of the largest set that may be reported; None leaves it to the decoder.
        seed: the only source of randomness.
        design: the `SpexDesign` that made the masks, if one did.

    Raises:
        ShapeError: masks or values of the wrong width, length or dtype.
        FailedMasksError: values that are NaN or infinite.
        Refused: no units, a density outside (0, 1), masks that are all the same, an order below 1.
    """
    masks = check_masks(masks)
    raw = np.asarray(values)
    if masks.shape[1] == 0:
        raise Refused(f"masks of shape {list(masks.shape)} have no units; give at least one column")
    if raw.ndim not in (1, 2) or len(raw) != len(masks) or raw.size == 0:
        raise ShapeError(
            f"values of shape {list(raw.shape)} for masks of shape {list(masks.shape)}; give "
            "one value a mask, [mask], or one a mask and output, [mask, output]"
        )
    if raw.dtype.kind not in "fiu":
        raise ShapeError(
            f"values of shape {list(raw.shape)} have dtype {raw.dtype}, expected real "
            "numbers; convert them with values.astype(float)"
        )
    measured = raw.astype(np.float64)
    failed = ~finite_rows(measured)
    if failed.any():
        raise FailedMasksError(
            f"{int(failed.sum())} of {len(measured)} masks have a NaN or infinite value, the first "
            f"is row {int(failed.argmax())}; drop those rows or measure them again"
        )
    if max_order is not None and max_order < 1:
        raise Refused(f"max_order = {max_order}: give an order of at least 1, or None")
    if seed < 0:
        raise Refused(f"seed = {seed}: give a whole number from 0 up")
    share = float(masks.mean()) if keep is None else keep
    if keep is None and share in (0.0, 1.0):
        raise Refused(
            f"all {len(masks)} masks {'keep' if share else 'ablate'} every unit; decode masks that "
            "differ, such as those of sample_masks"
        )
    if not 0 < share < 1:
        raise Refused(f"keep = {keep}: give a probability strictly between 0 and 1")
    if measured.ndim == 1:
        measured = measured[:, None]
    groups = () if design is None else design.groups_in(masks)
    return Samples(masks, measured, share, max_order, seed, groups)


def _exact_for_one_unit(samples: Samples) -> SetFunction:
    kept = samples.masks[:, 0]
    if kept.all() or not kept.any():
        raise BudgetError(
            f"all {samples.n_masks} masks have the only unit {'kept' if kept.all() else 'ablated'};"
            " measure at least 1 mask of each kind, 2 in all"
        )
    ablated_mean = samples.values[~kept].mean(axis=0)
    effect = samples.values[kept].mean(axis=0) - ablated_mean
    note = "one unit: the exact difference of the two means"
    return samples.function({(): ablated_mean, (0,): effect}, basis="kept", notes=(note,))
