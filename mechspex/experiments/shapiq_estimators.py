"""shapiq's estimators of Shapley values of 2025 and 2026, where they are installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

from mechspex.set_functions.set_function import SetFunction

# With their options; the polynomial has a term for every two masks at most.
_ESTIMATORS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "LeverageSHAP": lambda n_units, n_masks: {},
    "PolySHAP": lambda n_units, n_masks: {
        "max_terms": max(n_units + 1, n_masks // 2), "pairing_trick": True,
    },
    "OddSHAP": lambda n_units, n_masks: {},
    "ProxySHAP": lambda n_units, n_masks: {
        "index": "SV", "max_order": 1, "proxy_model": "lightgbm", "adjustment": True,
    },
}  # fmt: skip
NAMES = tuple(f"{name} of shapiq" for name in _ESTIMATORS)
LEFT_OUT = (
    f"{', '.join(_ESTIMATORS)}: shapiq has them from 1.5 on, for Python 3.12; "
    "pip install 'shapiq>=1.5'",
    "ShaplEIG of shapiq, which fits a Gaussian process anew after every mask",
)


def shapiq_version() -> str:
    """The release of shapiq that has all of these estimators; empty where none is installed."""
    try:
        shapiq = import_module("shapiq")
    except ImportError:
        return ""
    has_all = all(hasattr(shapiq, name) for name in _ESTIMATORS)
    return str(shapiq.__version__) if has_all else ""


def shapiq_estimates(
    function: SetFunction, n_masks: int, seed: int
) -> Iterator[tuple[str, Float[np.ndarray, " unit"]]]:
    """What each estimator makes of so many masks of its own choice.

    LeverageSHAP (Musco & Witter 2025), PolySHAP and OddSHAP (Fumagalli et al. 2026) and ProxySHAP,
    boosted trees whose error is estimated as well, as shapiq has them.

    Args:
        function: the function.
        n_masks: the masks that each may measure.
        seed: the seed of the masks.
    """
    if not shapiq_version():
        return
    shapiq, n_units = import_module("shapiq"), function.n_units
    for name, options in _ESTIMATORS.items():
        estimator = getattr(shapiq, name)(n=n_units, random_state=seed, **options(n_units, n_masks))

        def game(masks: Any) -> Float[np.ndarray, " mask"]:
            return function.predict(np.asarray(masks, dtype=bool))

        with warnings.catch_warnings():
            # Of few masks they say that there are few.
            warnings.simplefilter("ignore")
            found = estimator.approximate(n_masks, game)
        yield (
            f"{name} of shapiq",
            np.array([found.dict_values.get((unit,), 0.0) for unit in range(n_units)]),
        )
