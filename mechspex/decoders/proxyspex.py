"""ProxySPEX decoder: boosted trees as a proxy, their Fourier coefficients as the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from sklearn.linear_model import RidgeCV

from mechspex.decoders.cross_validation import folds
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.trees import (
    Tree,
    TreesUnavailable,
    fit_lightgbm,
    fit_scikit_learn,
    fourier,
    predictions,
)
from mechspex.scores import r_squared
from mechspex.set_function import SetFunction, Term, features

FitTrees = Callable[..., list[Tree]]

_HELD_OUT = 150
_PENALTIES = np.logspace(-4, 4, 17)
_SUPPORT = 8


@dataclass(frozen=True)
class ProxySpex(Decoder):
    """Boosted trees fitted to (mask, value), read off exactly, cut to their largest terms.

    Depth and number of trees are chosen by cross-validation. The largest Fourier coefficients of
    the trees (exact at any p) are kept, then refitted on their support by ridge regression with an
    unpenalised intercept, if cross-validation says that helps. Butler et al. 2025.

    Attributes:
        depths: of the trees, among which cross-validation chooses.
        n_trees: numbers of trees, ascending, likewise.
        n_terms: how many of the largest coefficients are kept.
        refit_share: the support that is refitted, as a share of the number of masks.
        fit_trees: LightGBM by default; where it cannot be used, scikit-learn's trees take over
            and a note says so.
    """

    name: ClassVar[str] = "proxyspex"

    depths: tuple[int, ...] = (2, 3, 5)
    n_trees: tuple[int, ...] = (25, 50, 100, 200, 300)
    n_terms: int = 2000
    refit_share: float = 0.25
    fit_trees: FitTrees = fit_lightgbm

    def minimum_masks(self, n_units: int) -> int:
        return 20

    def fit(self, samples: Samples) -> SetFunction:
        # LightGBM works in single precision: without their mean the values keep more digits.
        mean = float(samples.values.mean())
        centred = replace(samples, values=samples.values - mean)
        try:
            answer = self._fit(centred)
        except TreesUnavailable as error:
            answer = replace(self, fit_trees=fit_scikit_learn)._fit(centred)
            note = f"proxyspex: {error}; used scikit-learn's GradientBoostingRegressor instead"
            answer = replace(answer, notes=(*answer.notes, note))
        terms = answer.to_mapping()
        return samples.function(terms | {(): terms[()] + mean}, notes=answer.notes)

    def _fit(self, samples: Samples) -> SetFunction:
        depth, n_trees, refit = self._choose(samples)
        trees = self.fit_trees(samples, depth=depth, n_trees=n_trees)
        answer = self._read(samples, trees)
        if refit:
            answer = self._refit(samples, answer)
        note = (
            f"proxyspex: {n_trees} trees of depth {depth}, coefficients "
            + ("refitted" if refit else "as in the trees")
            + ", chosen by cross-validation"
        )
        return replace(answer, notes=(note,))

    def _choose(self, samples: Samples) -> tuple[int, int, bool]:
        """Depth, number of trees, and whether the refit helps."""
        splits = folds(samples, _HELD_OUT)
        forests: dict[int, list[list[Tree]]] = {}
        scores: dict[tuple[int, int], float] = {}
        truth = np.concatenate([samples.values[test] for _, test in splits])
        for depth in self.depths:
            forests[depth] = [
                self.fit_trees(samples.rows(train), depth=depth, n_trees=self.n_trees[-1])
                for train, _ in splits
            ]
            staged = np.hstack(
                [
                    np.cumsum([predictions(tree, samples.masks[test]) for tree in forest], axis=0)
                    for forest, (_, test) in zip(forests[depth], splits, strict=True)
                ]
            )
            for n_trees in self.n_trees:
                scores[depth, n_trees] = r_squared(truth, staged[min(n_trees, len(staged)) - 1])
        depth, n_trees = max(scores, key=lambda chosen: scores[chosen])
        plain, refitted = [], []
        for forest, (train, test) in zip(forests[depth], splits, strict=True):
            answer = self._read(samples.rows(train), forest[:n_trees])
            plain.append(answer.predict(samples.masks[test]))
            refitted.append(self._refit(samples.rows(train), answer).predict(samples.masks[test]))
        helps = r_squared(truth, np.concatenate(refitted)) > r_squared(truth, np.concatenate(plain))
        return depth, n_trees, helps

    def _read(self, samples: Samples, trees: list[Tree]) -> SetFunction:
        highest = samples.order_up_to(max(self.depths))
        coefficients = fourier(trees, samples.keep)
        found = {t: c for t, c in coefficients.items() if c != 0 and len(t) <= highest}
        return samples.function({(): 0.0, **found}).truncate(self.n_terms)

    def _refit(self, samples: Samples, answer: SetFunction) -> SetFunction:
        """Ridge regression on the largest terms; its penalty by closed-form leave-one-out.

        Away from p = ½ a product of many factors takes its variance from a few rare masks. Terms
        that rest on fewer than `_SUPPORT` masks stay as they are in the trees.
        """
        pq = samples.keep * (1 - samples.keep)
        kurtosis = (1 - 3 * pq) / pq
        n_terms = int(self.refit_share * samples.n_masks)
        terms: list[Term] = [
            term
            for term in answer.truncate(n_terms).terms
            if term and samples.n_masks >= _SUPPORT * kurtosis ** len(term)
        ]
        if not terms:
            return answer
        chosen = set(terms)
        others = {t: c for t, c in answer.to_mapping().items() if t not in chosen}
        rest = samples.values - samples.function(others).predict(samples.masks)
        design = features(samples.masks, terms, basis="fourier", keep=samples.keep)
        ridge = RidgeCV(alphas=_PENALTIES).fit(design, rest)
        refitted = dict(zip(terms, np.asarray(ridge.coef_).tolist(), strict=True))
        others[()] = others.get((), 0.0) + float(ridge.intercept_)
        return samples.function(others | refitted)
