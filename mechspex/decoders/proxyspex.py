"""ProxySPEX decoder: boosted trees as a proxy, their Fourier coefficients as the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.core.errors import Refused
from mechspex.core.units import Term
from mechspex.decoders.boosting import (
    BoostTrees,
    TreesUnavailable,
    boost_lightgbm,
    boost_scikit_learn,
)
from mechspex.decoders.cross_validation import Split, folds
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.fold_trees import FoldTrees, SettledTrees, TreeTargets, grow
from mechspex.decoders.ridge import ridge
from mechspex.decoders.trees import Forest, fourier
from mechspex.set_functions.bases import features
from mechspex.set_functions.set_function import SetFunction

# Masks that the folds hold out together, at least.
_HELD_OUT = 150
# A term is refitted if at least this many masks carry its variance.
_SUPPORT = 8
# The largest support that is refitted, as a share of the number of masks.
_REFITTED = 0.25


@dataclass(frozen=True, repr=False)
class ProxySpex(Decoder):
    """Boosted trees fitted to (mask, value), read off exactly, cut to their largest terms.

    Cross-validation chooses depth, learning rate and number of trees. The default grid is that of
    the published code (depths 3 and 5, rates 0.1 and 0.01, up to 5,000 trees) with two additions:
    depth 2, which few masks or a high p prefer, and every fifth number of trees up to 5,000. The
    depth is chosen at the first rate, then the rate at that depth; `ProxySpex(rates=(0.1,))` is two
    to four times as fast. The largest Fourier coefficients of the trees are kept; they are exact at
    any p. Ridge regression with an unpenalised intercept then refits them on their support, if
    cross-validation says that this helps (Butler et al. 2025).

    Several outputs share one support: trees are fitted to their mean and to the leading principal
    components of the rest, and the refit serves every output.

    Attributes:
        depths: the depths of trees to choose from.
        rates: the learning rates to choose from; depths are compared at the first of them.
        n_trees: the most trees.
        n_terms: how many of the largest coefficients are kept.
        energy: the share of the squared coefficients, the constant apart, that the kept terms must
            hold. With both `n_terms` and `energy` the smaller set is kept; with neither, a quarter
            as many terms as there are masks, which is the most that is refitted.
        refit: whether the refit is tried.
        boost: the function that boosts trees. Where the default, LightGBM, cannot be used,
            scikit-learn's trees take over and a note says so.
        settled: what cross-validation would choose, where held-out masks have settled it already;
            then trees are grown once.

    Raises:
        Refused: no depth or rate, fewer than one tree or term, an energy outside (0, 1].
    """

    name: ClassVar[str] = "proxyspex"
    most_units: ClassVar[int | None] = 2_000

    depths: tuple[int, ...] = (2, 3, 5)
    rates: tuple[float, ...] = (0.1, 0.01)
    n_trees: int = 5000
    n_terms: int | None = None
    energy: float | None = None
    refit: bool = True
    boost: BoostTrees = boost_lightgbm
    settled: SettledTrees | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.depths or min(self.depths) < 1:
            raise Refused(f"depths = {self.depths}: give at least one, each of at least 1")
        if not self.rates or not 0 < min(self.rates) <= max(self.rates) <= 1:
            raise Refused(f"rates = {self.rates}: give at least one, each above 0 and at most 1")
        if self.n_trees < 1:
            raise Refused(f"n_trees = {self.n_trees}: give at least 1")
        if self.n_terms is not None and self.n_terms < 1:
            raise Refused(f"n_terms = {self.n_terms}: give at least 1, or None")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise Refused(f"energy = {self.energy}: give a share above 0 and at most 1, or None")

    def minimum_masks(self, n_units: int) -> int:
        return 20

    def fit(self, samples: Samples) -> SetFunction:
        targets = TreeTargets.of(samples)
        try:
            answer = self._fit(targets)
        except TreesUnavailable as error:
            slow = {"boost": boost_scikit_learn, "rates": self.rates[:1], "settled": None}
            fallback = replace(self, **slow)
            answer = fallback._fit(targets)
            note = f"proxyspex: {error}; used scikit-learn's GradientBoostingRegressor instead"
            answer = replace(answer, notes=(*answer.notes, note))
        coefficients = answer.output_coefficients @ targets.back
        coefficients[answer.terms.index(())] += targets.mean
        return replace(answer, output_coefficients=coefficients)

    def _fit(self, targets: TreeTargets) -> SetFunction:
        samples = targets.samples
        settled = self.settled or self._settle(targets, folds(samples, _HELD_OUT))
        # A part of the masks can show fewer directions of the outputs, or more: those get no trees.
        settings = settled.settings[: targets.n_forests]
        answer = self._read(samples, [grow(self.boost, targets, setting) for setting in settings])
        if settled.refit:
            answer = _refit(samples, answer)
        numbers = " + ".join(str(setting.n_trees) for setting in settings)
        note = (
            f"proxyspex: {numbers} trees of depth {settings[0].depth} at rate {settings[0].rate}, "
            f"coefficients {'refitted' if settled.refit else 'as in the trees'}, "
            "chosen by cross-validation"
        )
        return replace(answer, notes=(note,))

    def _settle(self, targets: TreeTargets, splits: Sequence[Split]) -> SettledTrees:
        trees = self._grow(targets, splits)
        settings = trees.choose(range(len(splits)))
        predicted = [
            self._predictions(targets.samples, split, trees.forests(fold, settings))
            for fold, split in enumerate(splits)
        ]
        refit = self.refit and sum(_refit_gains(targets.samples, splits, predicted)) > 0
        return SettledTrees(tuple(settings), refit)

    def predict_held_out(
        self, samples: Samples, splits: Sequence[Split]
    ) -> tuple[Float[np.ndarray, "held_out output"], Decoder]:
        """What is predicted for each fold's test masks from the fold's training masks.

        Trees are grown once a fold, and their settings in a fold are those that do best in the
        others: cross-validation within every fold would grow five times as many.

        Args:
            samples: the masks and values.
            splits: (training rows, test rows) of each fold.

        Returns:
            The predictions, and this decoder at the settings that do best in all folds.
        """
        if len(splits) == 1 or not self._fits(samples, splits):
            return super().predict_held_out(samples, splits)
        if self.max_order is not None:
            samples = replace(samples, max_order=self.max_order)
        targets, every = TreeTargets.of(samples), range(len(splits))
        try:
            trees = self._grow(targets, splits)
            settings = [trees.choose([k for k in every if k != fold]) for fold in every]
            predicted = [
                self._predictions(targets.samples, split, trees.forests(fold, settings[fold]))
                for fold, split in enumerate(splits)
            ]
        except TreesUnavailable:
            return super().predict_held_out(samples, splits)
        gains = _refit_gains(targets.samples, splits, predicted)
        turned = [
            both[int(self.refit and sum(gains) - gain > 0)]
            for both, gain in zip(predicted, gains, strict=True)
        ]
        settled = SettledTrees(tuple(trees.choose(every)), self.refit and sum(gains) > 0)
        predictions = targets.mean + np.concatenate(turned) @ targets.back
        return predictions, replace(self, settled=settled)

    def _fits(self, samples: Samples, splits: Sequence[Split]) -> bool:
        """Whether there is something to fit, to all units, in every fold."""
        fewest = min(len(train) for train, _ in splits)
        return (
            fewest >= self.minimum_masks(samples.n_units)
            and 1 < samples.n_units <= (self.most_units or samples.n_units)
            and bool(np.ptp(samples.values, axis=0).any())
        )

    def _grow(self, targets: TreeTargets, splits: Sequence[Split]) -> FoldTrees:
        depths = sorted({targets.samples.order_up_to(depth) for depth in self.depths})
        trees = FoldTrees(self.boost, targets, splits, self.n_trees)
        trees.try_settings(depths, self.rates)
        return trees

    def _predictions(
        self, samples: Samples, split: Split, forests: Sequence[Forest]
    ) -> Float[np.ndarray, "refitted _ output"]:
        """What the trees of a fold predict for its test masks, as they are and refitted."""
        train, test = split
        answer = self._read(samples, forests)
        answers = (answer, _refit(samples.rows(train), answer) if self.refit else answer)
        return np.stack([one.predict_outputs(samples.masks[test]) for one in answers])

    def _read(self, samples: Samples, forests: Sequence[Forest]) -> SetFunction:
        """The largest terms of the trees; outputs without trees have coefficients 0."""
        terms, coefficients = fourier(forests, samples.keep)
        energies = (coefficients**2).sum(axis=1)
        energies[0] = 0.0
        order = np.argsort(-energies, kind="stable")[: np.count_nonzero(energies)]
        n_terms = self.n_terms
        if n_terms is None and self.energy is None:
            n_terms = max(1, int(_REFITTED * samples.n_masks))
        if self.energy is not None:
            short = np.cumsum(energies[order]) < self.energy * energies.sum()
            order = order[: np.count_nonzero(short) + 1]
        chosen = np.append(0, order[:n_terms])
        padded = np.zeros((len(chosen), samples.values.shape[1]))
        padded[:, : len(forests)] = coefficients[chosen]
        sets = (tuple(unit for unit in row if unit >= 0) for row in terms[chosen].tolist())
        return samples.function(dict(zip(sets, padded, strict=True)))


def _refit_gains(
    samples: Samples,
    splits: Sequence[Split],
    predicted: Sequence[Float[np.ndarray, "refitted _ output"]],
) -> list[float]:
    """By how much the refit lowers the squared error on each fold's test masks."""
    gains = []
    for (_, test), both in zip(splits, predicted, strict=True):
        plain, refitted = ((samples.values[test] - both) ** 2).sum(axis=(1, 2))
        gains.append(float(plain - refitted))
    return gains


def _refit(samples: Samples, answer: SetFunction) -> SetFunction:
    """Ridge regression on the largest terms.

    Away from p = ½ a product of many factors takes its variance from a few rare masks. Terms
    that rest on fewer than `_SUPPORT` masks stay as they are in the trees.
    """
    pq = samples.keep * (1 - samples.keep)
    kurtosis = (1 - 3 * pq) / pq
    terms: list[Term] = [
        term
        for term in answer.truncate(int(_REFITTED * samples.n_masks)).terms
        if term and samples.n_masks >= _SUPPORT * kurtosis ** len(term)
    ]
    if not terms:
        return answer
    coefficients = dict(zip(answer.terms, answer.output_coefficients, strict=True))
    chosen = set(terms)
    others = samples.function({t: c for t, c in coefficients.items() if t not in chosen})
    rest = samples.values - others.predict_outputs(samples.masks)
    design = features(samples.masks, terms, basis="fourier", keep=samples.keep)
    refitted, intercept = ridge(design, rest)
    coefficients |= dict(zip(terms, refitted, strict=True))
    coefficients[()] = coefficients[()] + intercept
    return samples.function(coefficients, notes=answer.notes)
