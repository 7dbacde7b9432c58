"""Answers of planted functions: what figures draw, at any number of units, in milliseconds."""

import numpy as np

import mechspex as mx
from mechspex.core.units import Unit, UnitSet
from mechspex.recovery.evidence import Evidence
from mechspex.runs.cost import Cost

CONFIGURATION = {
    "model": "smollm2-135m",
    "task": "ioi, 8 prompts 0123456789abcdef",
    "metric": "logit_difference",
    "units": "270 heads",
    "ablation": "mean",
}


def heads(n_layers: int, n_heads: int) -> UnitSet:
    return UnitSet(
        tuple(Unit("head", layer, head) for layer in range(n_layers) for head in range(n_heads))
    )


def long_names(number: int) -> UnitSet:
    """Parts with names of about fifty letters."""
    return mx.parts(
        f"the {n}th clause of a very long contract, {n % 7} $pages" for n in range(number)
    )


def planted(units: UnitSet, *, n_outputs: int = 8, n_pairs: int = 14, seed: int = 0):
    """An explanation of a function with singles, pairs, triples and a set of four."""
    rng = np.random.default_rng(seed)
    n = len(units)
    terms: dict[tuple[int, ...], np.ndarray] = {(): np.full(n_outputs, 3.4)}
    for column in rng.permutation(n)[: max(3, n // 3)]:
        terms[(int(column),)] = rng.normal(-0.3, 0.7) + 0.3 * rng.normal(size=n_outputs)
    strong = [term[0] for term in terms if term][: max(4, n // 3)]
    for order, number in ((2, n_pairs), (3, n_pairs // 4), (4, n_pairs // 8)):
        for _ in range(number):
            pool = strong if len(strong) >= order + 2 else range(n)
            term = tuple(sorted(rng.choice(pool, size=min(order, n), replace=False).tolist()))
            if len(set(term)) == order:
                terms[term] = rng.normal(0.0, 0.6) + 0.2 * rng.normal(size=n_outputs)
    function = mx.SetFunction.from_mapping(n, terms, basis="ablated", keep=0.9)
    chosen = sorted((t for t in terms if t), key=lambda t: (len(t), -abs(terms[t].mean())))
    chosen = [t for t in chosen if len(t) == 1][:12] + [t for t in chosen if len(t) > 1]
    values = mx.FunctionValues(function.predict_outputs, units)
    validation = mx.validate(values, chosen)
    singles = {t: v for t, v in terms.items() if len(t) < 2}
    additive = mx.SetFunction.from_mapping(n, singles, basis="ablated", keep=0.9)
    recovery = mx.Recovery(function, additive, 0.93, 0.85, (0.91, 0.95), 800, 200)
    ends = values(np.stack([np.ones(n, bool), np.zeros(n, bool)])).mean(axis=1)
    return mx.Explanation(
        units=units,
        outputs=tuple(f"When Mary and John went to the store {j}" for j in range(n_outputs)),
        configuration=CONFIGURATION,
        settings={},
        clean=float(ends[0]),
        ablated=float(ends[1]) - 0.4,
        recovery=recovery,
        validation=validation,
        cost=Cost(1000, 1000, 10.0, 12.0),
    )


def evidence(n: int, seed: int = 0) -> Evidence:
    rng = np.random.default_rng(seed)
    terms = [(i,) for i in range(n)] + [(i, i + 1) for i in range(n - 1)]
    size = np.sort(rng.exponential(0.3, len(terms)))[::-1] * rng.choice([-1, 1], len(terms))
    spread = np.full(len(terms), 0.15)
    return Evidence(
        terms=tuple(terms),
        coefficients=size,
        intervals=np.stack([size - spread, size + spread], axis=1),
        p_values=np.where(np.abs(size) > 0.15, 0.001, 0.5),
        discovered=np.abs(size) > 0.15,
        selected=np.clip(np.abs(size) * 2, 0, 1),
        level=0.05,
    )
