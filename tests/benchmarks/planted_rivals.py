"""Published decoders, called as their documentation says, on the same planted function.

    pip install shapiq==1.4.1 sparse-transform==0.2.1

Each takes a measurement (masks in, noisy values out), which it may call with masks of its own
choice, and a budget of masks. SPEX and ProxySPEX draw uniform masks whatever the density asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from shapiq.approximator.sparse import SPEX, ProxySPEX  # pyright: ignore[reportMissingImports]
from sklearn.linear_model import LassoCV
from sparse_transform.qsft.qsft import transform  # pyright: ignore[reportMissingImports]
from sparse_transform.qsft.signals.input_signal_subsampled import SubsampledSignal  # pyright: ignore[reportMissingImports]
from sparse_transform.qsft.utils.query import get_bch_decoder  # pyright: ignore[reportMissingImports]

from mechspex.core.masks import sample_masks
from mechspex.set_functions.set_function import SetFunction

Measure = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Trees:
    """Boosted trees: they predict, and name no terms."""

    booster: lightgbm.LGBMRegressor

    def predict(self, masks: np.ndarray) -> np.ndarray:
        return np.asarray(self.booster.predict(masks.astype(np.uint8)))


def shapiq_spex(measure: Measure, n_units: int, n_masks: int, keep: float, seed: int):
    """SPEX with soft decoding and t = 5, its defaults."""
    return _shapiq(SPEX(n=n_units, random_state=seed), measure, n_units, n_masks, seed)


def shapiq_proxyspex(measure: Measure, n_units: int, n_masks: int, keep: float, seed: int):
    """ProxySPEX with its defaults."""
    return _shapiq(ProxySPEX(n=n_units, random_state=seed), measure, n_units, n_masks, seed)


def _shapiq(approximator: Any, measure: Measure, n_units: int, n_masks: int, seed: int):
    np.random.seed(seed)  # noqa: NPY002 (SPEX draws its groups from the global generator)
    answer = approximator.approximate(n_masks, lambda masks: measure(np.asarray(masks, dtype=bool)))
    # Faith-Banzhaf values of all orders are the function itself in the kept basis.
    return _set_function(n_units, answer.dict_values, "kept")


def sparse_transform(measure: Measure, n_units: int, n_masks: int, keep: float, seed: int):
    """The transform below SPEX with the LASSO refit that shapiq leaves out."""
    np.random.seed(seed)  # noqa: NPY002 (the same)
    query = {
        "query_method": "complex",
        "num_subsample": 3,
        "delays_method_source": "joint-coded",
        "subsampling_method": "qsft",
        "delays_method_channel": "identity-siso",
        "num_repeat": 1,
    }
    for order in (5, 4, 3, 2):
        bits = SubsampledSignal.get_b_for_sample_budget(n_masks, n_units, order, 2, query)
        if bits > 2:
            break
    else:
        raise ValueError("Insufficient budget to compute the transform.")
    signal = SubsampledSignal(
        func=lambda rows: measure(np.asarray(rows).astype(bool)),
        n=n_units,
        q=2,
        query_args=query | {"t": order, "b": bits},
    )
    answer = transform(
        signal,
        b=bits,
        num_subsample=3,
        num_repeat=1,
        reconstruct_method_source="coded",
        reconstruct_method_channel="identity-siso",
        source_decoder=get_bch_decoder(n_units, order, "soft"),
        peeling_method="multi-detect",
        report=True,
        regress="lasso",
    )
    # Their factor is (−1)^{m}, ours 2m − 1.
    terms = {
        tuple(np.flatnonzero(row)): (-1) ** sum(row) * float(np.real(value))
        for row, value in answer["transform"].items()
    }
    return _set_function(n_units, terms, "fourier")


def lightgbm_alone(measure: Measure, n_units: int, n_masks: int, keep: float, seed: int):
    """Boosted trees: depth and number chosen on a fifth of the masks, then fitted to all."""
    masks = sample_masks(n_units, n_masks, keep=keep, seed=seed)
    values, rows = measure(masks), masks.astype(np.uint8)
    n_train = n_masks * 4 // 5
    trials = []
    for depth in (2, 3, 5):
        model = _trees(depth, 3000, seed)
        model.fit(
            rows[:n_train],
            values[:n_train],
            eval_set=[(rows[n_train:], values[n_train:])],
            callbacks=[lightgbm.early_stopping(100, verbose=False)],
        )
        trials.append((model.best_score_["valid_0"]["l2"], depth, model.best_iteration_))
    _, depth, n_trees = min(trials)
    return Trees(_trees(depth, n_trees, seed).fit(rows, values))


def _trees(depth: int, n_trees: int, seed: int) -> lightgbm.LGBMRegressor:
    return lightgbm.LGBMRegressor(
        max_depth=depth,
        num_leaves=2**depth,
        n_estimators=n_trees,
        learning_rate=0.1,
        n_jobs=1,
        random_state=seed,
        verbose=-1,
    )


def lasso(measure: Measure, n_units: int, n_masks: int, keep: float, seed: int):
    """LASSO on the units alone, its penalty by cross-validation."""
    masks = sample_masks(n_units, n_masks, keep=keep, seed=seed)
    fit = LassoCV(cv=5).fit(masks.astype(np.float32), measure(masks))
    terms = {(unit,): fit.coef_[unit] for unit in np.flatnonzero(fit.coef_)}
    return _set_function(n_units, terms | {(): fit.intercept_}, "kept")


def _set_function(n_units: int, terms: Mapping[Any, float], basis: Any) -> SetFunction:
    plain = {tuple(sorted(map(int, term))): float(value) for term, value in terms.items()}
    return SetFunction.from_mapping(n_units, plain, basis=basis)


RIVALS: dict[str, Callable[..., SetFunction | Trees]] = {
    "shapiq-spex": shapiq_spex,
    "shapiq-proxyspex": shapiq_proxyspex,
    "sparse-transform": sparse_transform,
    "lightgbm": lightgbm_alone,
    "lasso": lasso,
}
