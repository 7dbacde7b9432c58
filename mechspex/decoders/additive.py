"""Additive decoder: LASSO on single units, the baseline every report shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.group_lasso import group_lasso
from mechspex.set_functions.bases import features
from mechspex.set_functions.set_function import SetFunction


@dataclass(frozen=True, repr=False)
class Additive(Decoder):
    """f(m) ≈ c + Σ_i c_i z_i, by the group LASSO: one support for all outputs.

    The penalty is chosen by cross-validation; see `group_lasso`.
    """

    name: ClassVar[str] = "additive"
    most_units: ClassVar[int | None] = 2_000

    def minimum_masks(self, n_units: int) -> int:
        return 10

    def fit(self, samples: Samples) -> SetFunction:
        terms = [(unit,) for unit in range(samples.n_units)]
        design = features(samples.masks, terms, basis="fourier", keep=samples.keep)
        design_mean, value_mean = design.mean(axis=0), samples.values.mean(axis=0)
        design -= design_mean
        values = samples.values - value_mean
        scale = values.std()
        coefficients = scale * group_lasso(design, values / scale, seed=samples.seed)
        singles = {terms[i]: coefficients[i] for i in np.flatnonzero(coefficients.any(axis=1))}
        return samples.function({(): value_mean - design_mean @ coefficients, **singles})
