"""Which few heads change the value most when they are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from mechspex.core.masks import ablate_sets, both_ends, single_ablations
from mechspex.core.units import Term
from mechspex.core.value_function import ValueFunction
from mechspex.decoders import decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment, mean_rows
from mechspex.experiments.ioi_masks import ioi_heads, shared
from mechspex.experiments.paper_figure import Claim, Published, series
from mechspex.experiments.r2_samples import (
    BITS,
    DENSITIES,
    SPEX,
    sizes,
    spex_design,
    training_masks,
)
from mechspex.experiments.reproduction import Axes
from mechspex.set_functions.set_function import SetFunction
from mechspex.subsets.best_subset import front, greedy

DECODERS = ("additive", "proxyspex", "automatic")
SINGLES, GREEDY, BEST, RANDOM = (
    "single ablations, added up", "greedy on the model", "best of all pairs", "random",
)  # fmt: skip
AS_CODE = "proxyspex, published code"
REMOVED = range(1, 11)
# Pairs are ablated among this many heads, those with the largest effect alone.
_PAIRED = 60
_DRAWN = 20
_SECONDS = 10.0

Sets = Mapping[int, Term]
Rows = list[dict[str, Any]]


def removed_as_defined(function: SetFunction, seed: int) -> Sets:
    """{r: the r units without which the function changes most}, |f̂(1) − f̂(m)|, |m| = n − r.

    The largest fall and the largest rise, each by the exact subset program; the larger is taken
    (Butler et al. 2025, section 4; Kang et al. 2025, Rem).

    Args:
        function: a recovered function.
        seed: the seed of the search.
    """
    numbers = [r for r in REMOVED if r < function.n_units]
    whole = float(function.predict(both_ends(function.n_units)[:1])[0])
    negative = SetFunction(
        function.n_units, function.terms, -function.output_coefficients, function.basis,
        function.keep,
    )  # fmt: skip
    falls, rises = (
        front(one, numbers, "remove", time_limit=_SECONDS, seed=seed)
        for one in (function, negative)
    )
    return {
        r: max((falls[r], whole - falls[r].value), (rises[r], -rises[r].value - whole),
               key=lambda found: found[1])[0].columns
        for r in numbers
    }  # fmt: skip


def removed_as_published_code(function: SetFunction, seed: int) -> Sets:
    """{r: the first r of the units whose keeping alone makes the function largest}.

    What the code of SPEX does in place of Rem(r): it maximises f̂ of the most units kept alone,
    then removes them, smaller numbers of them in the order of their columns.

    Args:
        function: a recovered function.
        seed: the seed of the search.
    """
    most = min(REMOVED[-1], function.n_units - 1)
    kept = front(function, [most], "keep", time_limit=_SECONDS, seed=seed)[most].columns
    return {r: kept[:r] for r in REMOVED if r <= most}


def added_up(values: ValueFunction) -> SetFunction:
    """The sum of what each unit changes when it alone is ablated."""
    n_units = values.n_units
    whole = values(both_ends(n_units)[:1]).mean()
    effects = whole - values(single_ablations(n_units)).mean(axis=1)
    terms: dict[Term, float] = {(): float(whole - effects.sum())}
    return SetFunction.from_mapping(
        n_units, terms | {(i,): float(e) for i, e in enumerate(effects)}, basis="kept"
    )


def _decoded(asked: Asked, values: ValueFunction, keep: float) -> dict[str, SetFunction]:
    """What decoders make of the masks that `r2_samples` measures, as many as there are of each."""
    n_units, found = values.n_units, {}
    masks = training_masks(n_units, sizes(n_units, asked.full)[keep][-1], keep, asked.seed)
    measured = values(masks)
    for decoder in DECODERS:
        found[decoder] = decode(masks, measured, decoder=decoder, keep=keep, seed=asked.seed)
    if keep == 0.5:
        design = spex_design(n_units, BITS[asked.full][-1], asked.seed)
        measured = values(design.masks)
        found[SPEX] = decode(
            design.masks, measured, decoder="spex", design=design, keep=keep, seed=asked.seed
        )
    return found


def _change(values: ValueFunction, sets: Sequence[Term]) -> Float[np.ndarray, " set"]:
    """|f(1) − f(m)|/|f(1)| of each removal, f the mean over prompts."""
    whole = values(both_ends(values.n_units)[:1]).mean()
    without = values(ablate_sets(values.n_units, sets)).mean(axis=1)
    return np.abs(whole - without) / np.abs(whole)


def _rows(values: ValueFunction, name: str, sets: Sets) -> Rows:
    """What a choice of each size changes when it is measured."""
    changes = _change(values, list(sets.values())).tolist()
    return [
        {
            "series": name, "x": r, "y": change, "low": None, "high": None,
            "units": " ".join(values.units[i].name for i in columns),
        }
        for (r, columns), change in zip(sets.items(), changes, strict=True)
    ]  # fmt: skip


def _recovered(asked: Asked, values: ValueFunction, keep: float) -> Rows:
    """What is chosen by each decoder's function from masks of one density."""
    functions = _decoded(asked, values, keep)
    rows = [
        row
        for name, function in functions.items()
        for row in _rows(values, name, removed_as_defined(function, asked.seed))
    ]
    as_code = removed_as_published_code(functions["proxyspex"], asked.seed)
    return [*rows, *_rows(values, AS_CODE, as_code)]


def _references(asked: Asked, values: ValueFunction) -> Rows:
    """What is chosen by ablating on the model itself, and at random."""
    n_units = values.n_units
    alone = added_up(values)
    rows = [*_rows(values, SINGLES, removed_as_defined(alone, asked.seed))]
    whole = values(both_ends(n_units)[:1]).mean()
    order = greedy(
        lambda masks: -np.abs(whole - values(masks).mean(axis=1)), n_units,
        min(REMOVED[-1], n_units - 1), "remove",
    )  # fmt: skip
    rows += _rows(values, GREEDY, {r: order[:r] for r in range(1, len(order) + 1)})
    effects = np.array([alone[[i]] for i in range(n_units)])
    strongest = np.sort(np.argsort(-np.abs(effects), kind="stable")[:_PAIRED]).tolist()
    best = {1: [(i,) for i in range(n_units)], 2: list(combinations(strongest, 2))}
    rows += _rows(
        values, BEST, {r: sets[int(np.argmax(_change(values, sets)))] for r, sets in best.items()}
    )
    rng = np.random.default_rng((asked.seed, n_units))
    for r in range(1, len(order) + 1):
        drawn = [
            tuple(sorted(rng.choice(n_units, r, replace=False).tolist())) for _ in range(_DRAWN)
        ]
        rows += mean_rows("", r, {RANDOM: _change(values, drawn)})
    return rows


_THREE = tuple(range(3, 8))
_PANELS = ("paper: Sentiment", "paper: MS-COCO", "paper (SPEX): Sentiment, 32 to 63 words",
           "paper (SPEX): Sentiment, 64 to 127 words")  # fmt: skip
_V, _P = "vector graphics", "result files"
_PUBLISHED = (
    *series(_PANELS[0], "additive", _THREE, (0.734, 0.810, 0.882, 0.990, 1.044), _V),
    *series(_PANELS[0], "proxyspex", _THREE, (0.877, 0.974, 1.040, 1.162, 1.252), _V),
    *series(_PANELS[0], SPEX, _THREE, (0.857, 0.942, 1.027, 1.108, 1.193), _V),
    *series(_PANELS[1], "additive", _THREE, (0.204, 0.238, 0.265, 0.294, 0.325), _V),
    *series(_PANELS[1], "proxyspex", _THREE, (0.240, 0.291, 0.307, 0.326, 0.349), _V),
    *series(_PANELS[1], SPEX, _THREE, (0.208, 0.236, 0.264, 0.287, 0.310), _V),
    *series(_PANELS[2], SPEX, _THREE, (0.87, 1.01, 1.13, 1.29, 1.37), _P),
    *series(_PANELS[2], "Faith-Shap, pairs", _THREE, (0.89, 1.03, 1.19, 1.30, 1.39), _P),
    *series(_PANELS[3], SPEX, _THREE, (1.53, 1.79, 2.02, 2.20, 2.29), _P),
    *series(_PANELS[3], "additive", _THREE, (1.17, 1.62, 1.90, 2.04, 2.18), _P),
    Published("SPEX's Rem of HotpotQA and DROP", "not comparable: the published code's value "
              "counts likely answer tokens, it is no log-probability", "result files"),
)  # fmt: skip


@experiment(FIGURES["removal"], _PUBLISHED)
def removal(asked: Asked) -> Measured:
    heads = ioi_heads(asked)
    with shared(asked, heads) as values:
        references = asked.cell({"of": "model"}, partial(_references, asked, values))
        rows = []
        for keep in DENSITIES:
            key = {"keep": keep, "panel": f"{values.n_units} heads, masks at p = {keep:g}"}
            own = asked.cell(key, partial(_recovered, asked, values, keep))
            rows += own + [row | key for row in references]
    axes = Axes("heads removed", "change of the value / the whole's")
    return Measured(rows, axes, _claims(rows))


def _claims(rows: Rows) -> tuple[Claim, ...]:
    at = {(row["keep"], row["series"], row["x"]): row["y"] for row in rows}

    def line(keep: float, name: str, of: Sequence[int] = _THREE) -> Float[np.ndarray, " r"]:
        return np.array([at[keep, name, r] for r in of if (keep, name, r) in at])

    def told(*names: str, keep: float) -> str:
        each = (f"{name} {' '.join(f'{y:.2f}' for y in line(keep, name))}" for name in names)
        return f"p = {keep:g}: {', '.join(each)}"

    def above(one: str, other: str) -> bool | None:
        """Whether one is above the other in the mean over r = 3 … 7, at both densities."""
        gains = [float((line(keep, one) - line(keep, other)).mean()) for keep in DENSITIES]
        return True if min(gains) > 0 else False if max(gains) <= 0 else None

    (best,) = line(0.5, BEST, (2,))
    found = [at[keep, "proxyspex", 2] for keep in DENSITIES]
    return (
        Claim(
            "What ProxySPEX removes changes more than what the LASSO removes (r = 3 … 7)",
            above("proxyspex", "additive"),
            "; ".join(told("proxyspex", "additive", keep=keep) for keep in DENSITIES),
        ),
        Claim(
            "The published code removes what the definition removes",
            all(np.allclose(line(k, AS_CODE), line(k, "proxyspex"), atol=0.01) for k in DENSITIES),
            "; ".join(told("proxyspex", AS_CODE, keep=keep) for keep in DENSITIES),
        ),
        Claim(
            "The pair that ProxySPEX removes is the one that changes most of all pairs",
            min(found) >= best - 0.005,
            f"{found[0]:.3f} (p = 0.5) and {found[1]:.3f} (p = 0.9), best of all {best:.3f}",
        ),
    )
