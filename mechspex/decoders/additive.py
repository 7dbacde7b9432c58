"""Additive decoder: LASSO on single units, the baseline every report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.linear_model import LassoCV

from mechspex.decoders.decoder import Decoder, Samples
from mechspex.set_function import SetFunction, features

# From the penalty that empties the model down to one whose bias is a ten-thousandth.
_PENALTIES = np.logspace(0, -4, 41)
_FOLDS = 5


@dataclass(frozen=True)
class Additive(Decoder):
    """f(m) ≈ c + Σ_i c_i z_i, with Σ|c_i| penalised; the penalty is chosen by cross-validation."""

    name: ClassVar[str] = "additive"

    def minimum_masks(self, n_units: int) -> int:
        return 2 * _FOLDS

    def fit(self, samples: Samples) -> SetFunction:
        singles = [(i,) for i in range(samples.n_units)]
        design = features(samples.masks, singles, basis="fourier", keep=samples.keep)
        design_mean, value_mean = design.mean(axis=0), samples.values.mean()
        scale = samples.values.std()
        design -= design_mean
        values = (samples.values - value_mean) / scale
        largest = np.abs(design.T @ values).max() / samples.n_masks
        shuffled = np.random.default_rng(samples.seed).permutation(samples.n_masks)
        lasso = LassoCV(
            alphas=max(largest, np.finfo(float).tiny) * _PENALTIES,
            cv=_FOLDS,
            fit_intercept=False,
            max_iter=100_000,
            tol=1e-5,
            random_state=samples.seed,
        ).fit(design[shuffled], values[shuffled])
        coefficients = scale * lasso.coef_
        terms = {(int(i),): float(coefficients[i]) for i in np.flatnonzero(coefficients)}
        return samples.function({(): float(value_mean - design_mean @ coefficients), **terms})
