"""ProxySPEX decoder: boosted trees as a proxy, their Fourier coefficients as the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.core.errors import Refused
from mechspex.core.units import Term
from mechspex.decoders.cross_validation import Split, folds
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.ridge import ridge
from mechspex.decoders.trees import (
    BoostTrees,
    Forest,
    TreesUnavailable,
    boost_lightgbm,
    boost_scikit_learn,
    fourier,
    grow,
    grow_while_better,
)
from mechspex.set_functions.bases import features
from mechspex.set_functions.set_function import SetFunction

# Masks that the folds hold out together, at least.
_HELD_OUT = 150
# A term is refitted if at least this many masks carry its variance.
_SUPPORT = 8
# The largest support that is refitted, as a share of the number of masks.
_REFITTED = 0.25
# Boosting ends when held-out masks have not been better for this many trees, times 1 / rate.
_PATIENCE = 3
# With several outputs trees are fitted to the mean and to so many principal components of the rest,
# or to fewer if those already hold this share of the variance.
_MOST_COMPONENTS = 3
_VARIANCE = 0.9
# A direction of the outputs is rounding if its standard deviation is below this share of the
# largest one.
_ROUNDING_OF_SPREAD = 1e-9


@dataclass(frozen=True, repr=False)
class ProxySpex(Decoder):
    """Boosted trees fitted to (mask, value), read off exactly, cut to their largest terms.

    Cross-validation chooses depth, learning rate and number of trees. The default grid is that of
    the published code (depths 3 and 5, rates 0.1 and 0.01, up to 5,000 trees) with two additions:
    depth 2, which few masks or a high p prefer, and every number of trees up to 5,000. The depth is
    chosen at the first rate, then the rate at that depth; `ProxySpex(rates=(0.1,))` is two to four
    times as fast. The largest Fourier coefficients of the trees are kept; they are exact at any p.
    Ridge regression with an unpenalised intercept then refits them on their support, if
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
        mean = samples.values.mean(axis=0)
        directions, n_forests = _directions(samples.values - mean)
        # LightGBM works in single precision: without their mean, and at unit scale, the values
        # keep more digits.
        spread = ((samples.values - mean) @ directions.T).std(axis=0)
        main = int(np.argmax(spread[:n_forests]))
        back = spread[:, None] * directions
        turned = replace(samples, values=(samples.values - mean) @ directions.T / spread)
        try:
            answer = self._fit(turned, n_forests, main)
        except TreesUnavailable as error:
            fallback = replace(self, boost=boost_scikit_learn, rates=self.rates[:1])
            answer = fallback._fit(turned, n_forests, main)
            note = f"proxyspex: {error}; used scikit-learn's GradientBoostingRegressor instead"
            answer = replace(answer, notes=(*answer.notes, note))
        coefficients = answer.output_coefficients @ back
        coefficients[answer.terms.index(())] += mean
        return replace(answer, output_coefficients=coefficients)

    def _fit(self, samples: Samples, n_forests: int, main: int) -> SetFunction:
        splits = folds(samples, _HELD_OUT)
        depths = sorted({samples.order_up_to(depth) for depth in self.depths})
        tried = [self._grow(samples, main, splits, depth, self.rates[0]) for depth in depths]
        depth = _best(tried).depth
        tried += [self._grow(samples, main, splits, depth, rate) for rate in self.rates[1:]]
        best = _best(tried)
        grown = [
            best if target == main else self._grow(samples, target, splits, depth, best.rate)
            for target in range(n_forests)
        ]
        forests = [
            grow(
                self.boost(samples.masks, target, depth=depth, rate=best.rate, seed=samples.seed),
                chosen.n_trees,
            )
            for target, chosen in zip(samples.values.T, grown, strict=False)
        ]
        answer = self._read(samples, forests)
        refit = self.refit and self._refit_helps(samples, splits, grown)
        if refit:
            answer = _refit(samples, answer)
        numbers = " + ".join(str(chosen.n_trees) for chosen in grown)
        note = (
            f"proxyspex: {numbers} trees of depth {depth} at rate {best.rate}, coefficients "
            + ("refitted" if refit else "as in the trees")
            + ", chosen by cross-validation"
        )
        return replace(answer, notes=(note,))

    def _grow(
        self, samples: Samples, target: int, splits: Sequence[Split], depth: int, rate: float
    ) -> _Grown:
        """The trees of every fold for one target, as many as held-out masks want."""
        masks, values = samples.masks, samples.values[:, target]
        forests, errors = [], []
        for train, test in splits:
            blocks = self.boost(
                masks[train], values[train], depth=depth, rate=rate, seed=samples.seed
            )
            forest, error = grow_while_better(
                blocks, self.n_trees, round(_PATIENCE / rate), masks[test], values[test]
            )
            forests.append(forest)
            errors.append(error)
        # A forest that stopped growing early stays as it is.
        longest = max(map(len, errors))
        padded = [np.pad(error, (0, longest - len(error)), mode="edge") for error in errors]
        total = np.sum(padded, axis=0)
        n_trees = int(np.argmin(total)) + 1
        return _Grown(
            depth, rate, n_trees, [forest.first(n_trees) for forest in forests], total[n_trees - 1]
        )

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

    def _refit_helps(
        self, samples: Samples, splits: Sequence[Split], grown: Sequence[_Grown]
    ) -> bool:
        gain = 0.0
        for fold, (train, test) in enumerate(splits):
            answer = self._read(samples, [target.forests[fold] for target in grown])
            refitted = _refit(samples.rows(train), answer)
            plain, better = (
                samples.values[test] - function.predict_outputs(samples.masks[test])
                for function in (answer, refitted)
            )
            gain += float((plain**2).sum() - (better**2).sum())
        return gain > 0


@dataclass(frozen=True)
class _Grown:
    """Cross-validated trees of one target: their number, a forest a fold, the squared error."""

    depth: int
    rate: float
    n_trees: int
    forests: list[Forest]
    error: float


def _best(tried: Sequence[_Grown]) -> _Grown:
    return min(tried, key=lambda grown: grown.error)


def _directions(
    centred: Float[np.ndarray, "mask output"],
) -> tuple[Float[np.ndarray, "direction output"], int]:
    """Orthonormal directions of the outputs, and how many of them get trees.

    The first is their mean, which so is decoded as if it were alone; then come the principal
    components of the rest, in which what cancels in the mean shows.
    """
    n_outputs = centred.shape[1]
    mean = np.full((1, n_outputs), n_outputs**-0.5)
    rest = centred - centred @ mean.T @ mean
    # Below zero the mean comes first, and all others are orthogonal to it.
    _, components = np.linalg.eigh(rest.T @ rest - (centred**2).sum() * mean.T @ mean)
    directions = np.vstack([mean, components.T[:0:-1]])
    variances = ((centred @ directions.T) ** 2).sum(axis=0)
    real = variances > _ROUNDING_OF_SPREAD**2 * variances.max()
    directions, variances = directions[real], variances[real]
    enough = np.cumsum(variances) >= _VARIANCE * variances.sum()
    return directions, min(1 + _MOST_COMPONENTS, int(np.argmax(enough)) + 1)


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
