"""Which sentences of a context an answer rests on, and how many ablations it takes to say so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.attribution.attention_scores import attention_scores
from mechspex.attribution.attribution import Attribution
from mechspex.attribution.context_cite import context_cite, logit_of
from mechspex.attribution.lds import lds
from mechspex.attribution.leave_one_out import leave_one_out
from mechspex.attribution.random_scores import random_scores
from mechspex.attribution.top_k_drop import top_k_drop
from mechspex.core.errors import BudgetError
from mechspex.core.masks import sample_masks, single_ablations
from mechspex.core.statistics import Difference, mean_estimate, paired_difference
from mechspex.core.units import Term
from mechspex.core.value_function import ValueFunction
from mechspex.decoders import decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.contexts import KINDS, Context, Kind, made_context, understood
from mechspex.experiments.experiment import Asked, Measured, experiment, mean_rows
from mechspex.experiments.paper_figure import Claim, Published, series
from mechspex.experiments.reproduction import Axes
from mechspex.models.load_model import Model, load_model
from mechspex.prompts.prompt_values import PromptValues
from mechspex.runs.run import Run
from mechspex.set_functions.set_function import SetFunction

BUDGETS, N_FRESH = (16, 32, 64, 128), 64
ADDITIVE, INTERACTIONS, CONTEXT_CITE = "additive", "automatic", "ContextCite"
LEAVE_ONE_OUT, ATTENTION, RANDOM = "leave one out", "attention", "random"
DECODED = (ADDITIVE, INTERACTIONS, CONTEXT_CITE)
# Sentences ablated for the drop, and interactions of SPEX's recovery.
_DROPPED, _STRONGEST = 3, 10
# A sentence is relevant whose loss halves or doubles the probability of the answer.
_RELEVANT = math.log(2)
# How far below another LDS one still matches it.
_MATCHES = 0.05
# Contexts are made until enough of them are understood, or these many.
_MOST_MADE = 1000


def recovery_at(terms: Mapping[Term, float], needed: Term, strongest: int = _STRONGEST) -> float:
    """SPEX's Recovery@r = (1/r) Σ_{i ≤ r} |S* ∩ S_i| / |S_i| (Kang et al. 2025).

    Args:
        terms: Fourier coefficients.
        needed: the set S*, the units that matter.
        strongest: r; sets S_i that there are none of recover nothing.
    """
    ranked = sorted((term for term in terms if term), key=lambda term: -abs(terms[term]))
    shares = [len(set(term) & set(needed)) / len(term) for term in ranked[:strongest]]
    return sum(shares) / strongest


def _decoded(
    method: str,
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, "mask output"],
    n_tokens: int,
    seed: int,
) -> Any:
    """What a method makes of masks and log-probabilities."""
    if method == CONTEXT_CITE:
        return context_cite(masks, logit_of(values.astype(np.float64)), n_tokens=n_tokens)
    return decode(masks, values, decoder=method, keep=0.5, seed=seed)


def _found(
    values: ValueFunction, recorded: Any, budgets: tuple[int, ...], n_tokens: int, seed: int
) -> dict[Any, Any]:
    """What every method says, by the masks it measured."""
    n_units = values.n_units
    masks = sample_masks(n_units, max(budgets), keep=0.5, seed=seed)
    measured = recorded(masks)
    found: dict[tuple[str, int], Any] = {
        (RANDOM, 1): random_scores(n_units, seed=seed),
        (LEAVE_ONE_OUT, n_units + 1): leave_one_out(recorded),
    }
    if isinstance(values, PromptValues):
        found[ATTENTION, 1] = attention_scores(values)
    for n in budgets:
        for method in DECODED:
            try:
                found[method, n] = _decoded(method, masks[:n], measured[:n], n_tokens, seed)
            except BudgetError:
                continue
    return found


def scores_of(
    values: ValueFunction, needed: Term, budgets: tuple[int, ...], n_tokens: int, seed: int
) -> list[dict[str, Any]]:
    """LDS, drop and the needed units that are named, of every method and number of masks.

    Args:
        values: the log-probability of an answer without some sentences.
        needed: the units without which there is none.
        budgets: the numbers of masks that are decoded.
        n_tokens: the tokens of the answer.
        seed: the seed of masks.
    """
    with Run.open(None) as run:
        recorded = run.record(values)
        found = _found(values, recorded, budgets, n_tokens, seed)
        named = {f"{method} {n}": one for (method, n), one in found.items()}
        scored = lds(named, recorded, n_masks=N_FRESH, seed=seed)
        dropped = top_k_drop(named, recorded, k=_DROPPED, seed=seed)
    rows = []
    for place, ((method, n), one) in enumerate(found.items()):
        function = one if isinstance(one, SetFunction) else one.function
        row = {
            "method": method, "masks": n, "lds": scored.scores[place, 0, 0],
            "drop": dropped.scores[place, 0, 0],
            "needed": len(_first(function, len(needed)) & set(needed)) / len(needed),
        }  # fmt: skip
        if isinstance(one, SetFunction):
            terms = one.to_basis("fourier", 0.5).to_mapping()
            row["recovery"] = recovery_at(terms, needed)
        elif isinstance(one, Attribution) and method == LEAVE_ONE_OUT:
            row["relevant"] = int((np.abs(one.scores) >= _RELEVANT).sum())
        rows.append(row)
    return rows


def _first(function: SetFunction, n_units: int) -> set[int]:
    """The units that cost most alone, as a method predicts it.

    The best set of two would be another: where two are needed together, either is as good as both.
    """
    whole = np.ones((1, function.n_units), dtype=bool)
    losses = function.predict(whole) - function.predict(single_ablations(function.n_units))
    return set(np.argsort(-losses, kind="stable")[:n_units].tolist())


def _cell(
    model: Model, context: Context, budgets: tuple[int, ...], seed: int
) -> list[dict[str, Any]]:
    n_tokens = len(model.tokenizer(context.response, add_special_tokens=False)["input_ids"])
    return scores_of(context.values(model), context.needed, budgets, n_tokens, seed)


def _understood(model: Model, kind: Kind, n_contexts: int, seed: int) -> list[dict[str, Any]]:
    """The seeds of the first contexts that the model understands."""
    rows: list[dict[str, Any]] = []
    for number in range(seed, seed + _MOST_MADE):
        if len(rows) == n_contexts:
            break
        if understood(model, made_context(kind, number)):
            rows.append({"number": number})
    return rows


_SAMPLES = (1344, 5376, 21504)
_PAPER = "paper: Recovery@10, HotpotQA, 16–31 sentences (rivals of order 3)"
_PUBLISHED = (
    *series(_PAPER, "spex", _SAMPLES, (0.220, 0.258, 0.247), "result files"),
    *series(_PAPER, "Faith-Shap", _SAMPLES, (0.146, 0.196, 0.198), "result files"),
    *series(_PAPER, "Faith-Banzhaf", _SAMPLES, (0.132, 0.165, 0.185), "result files"),
    Published("ContextCite, 32 ablations", "match or beat all baselines", "stated"),
    Published("ContextCite, relevant sources", "few", "stated"),
)
# {what a row has: (what it is called, its unit)}
_QUANTITIES = {
    "lds": ("LDS on fresh masks", "LDS"),
    "drop": (f"lost without the {_DROPPED} best", "log-probability (nats)"),
    "needed": ("the needed, among as many that cost most", "share of the needed"),
    "recovery": (f"Recovery@{_STRONGEST} of SPEX", f"Recovery@{_STRONGEST}"),
}
_CALLED = {"one": "one needed", "two": "two needed"}


@experiment(FIGURES["context-lds"], _PUBLISHED)
def context_lds(asked: Asked) -> Measured:
    model = load_model(asked.model) if isinstance(asked.model, str) else asked.model
    n_contexts, budgets = (18, (*BUDGETS, 256)) if asked.full else (3, BUDGETS)
    cells: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        there = asked.cell(
            {"kind": kind, "contexts": n_contexts},
            partial(_understood, model, kind, n_contexts, asked.seed),
        )
        cells[kind] = [
            row
            for number in (one["number"] for one in there)
            for row in asked.cell(
                {"kind": kind, "number": number},
                partial(_cell, model, made_context(kind, number), budgets, number),
            )
        ]
    rows: list[dict[str, Any]] = []
    axes: dict[str, Axes] = {_PAPER: _axes(_QUANTITIES["recovery"][1])}
    for quantity, (called, unit) in _QUANTITIES.items():
        for kind in KINDS:
            panel = f"{called}: {_CALLED[kind]}"
            axes[panel] = _axes(unit)
            rows += _means(panel, cells[kind], quantity)
            if quantity == "recovery":
                rows += _chance(panel, kind, cells[kind], budgets)
    return Measured(rows, _axes("score"), _claims(cells), panel_axes=axes)


def _axes(unit: str) -> Axes:
    return Axes("masks measured", unit, log=True)


def _means(panel: str, cells: list[dict[str, Any]], quantity: str) -> list[dict[str, Any]]:
    """A row a method and number of masks: the mean over contexts."""
    places = dict.fromkeys((row["method"], row["masks"]) for row in cells if quantity in row)
    return [
        row
        for method, n in places
        for row in mean_rows(panel, n, {method: _of(cells, method, n, quantity)})
    ]


def _of(
    cells: list[dict[str, Any]], method: str, n_masks: int, quantity: str
) -> Float[np.ndarray, " context"]:
    wanted = (row for row in cells if row["method"] == method and row["masks"] == n_masks)
    return np.array([row[quantity] for row in wanted], dtype=float)


def _chance(
    panel: str, kind: Kind, cells: list[dict[str, Any]], budgets: tuple[int, ...]
) -> list[dict[str, Any]]:
    """The recovery of any ten sets: on average each holds the share of needed sentences."""
    share = (KINDS.index(kind) + 1) / _n_units(cells)
    return [row for n in budgets for row in mean_rows(panel, n, {"sets drawn at random": [share]})]


def _claims(cells: Mapping[str, list[dict[str, Any]]]) -> tuple[Claim, ...]:
    """Over the contexts of both kinds, with the means of each."""
    every = [row for kind in KINDS for row in cells[kind]]
    n_units, most = _n_units(every), max(row["masks"] for row in every)

    def ahead(ours: tuple[str, int], theirs: tuple[str, int]) -> tuple[Difference, str]:
        one, other = (_of(every, *which, "lds") for which in (ours, theirs))
        found = paired_difference(one, other[None])
        means = (
            _of(cells[kind], *ours, "lds").mean() - _of(cells[kind], *theirs, "lds").mean()
            for kind in KINDS
        )
        each = ", ".join(
            f"{kind} needed {mean:+.2f}" for kind, mean in zip(KINDS, means, strict=True)
        )
        return found, f"{found:+.2f} LDS ({each})"

    (alone, by_leaving), (looked, by_attention) = (
        ahead((CONTEXT_CITE, 32), rival) for rival in ((LEAVE_ONE_OUT, n_units + 1), (ATTENTION, 1))
    )
    more, by_more = ahead((CONTEXT_CITE, 32), (CONTEXT_CITE, most))
    together, by_interactions = ahead((INTERACTIONS, 64), (ADDITIVE, 64))
    relevant = mean_estimate(_of(every, LEAVE_ONE_OUT, n_units + 1, "relevant"))
    return (
        Claim(
            f"32 ablations suffice: ContextCite is no more than {_MATCHES} LDS behind a baseline",
            _matches(alone, looked),
            f"less leave one out {by_leaving}; less attention {by_attention}",
        ),
        Claim(
            f"32 ablations suffice: no more than {_MATCHES} LDS behind {most} of them",
            _matches(more),
            f"ContextCite at 32 less that at {most} {by_more}",
        ),
        Claim(
            "Few sentences are relevant",
            None if relevant.low < n_units / 2 < relevant.high else relevant.high < n_units / 2,
            f"{relevant:.1f} of {n_units} halve or double the probability",
        ),
        Claim(
            "Interactions predict what a sum does not (ours)",
            together.low > 0 if together.leaves_out_zero else None,
            f"automatic less additive at 64 masks {by_interactions}",
        ),
    )


def _n_units(cells: list[dict[str, Any]]) -> int:
    """Leave one out measures each unit, and all."""
    return next(row["masks"] for row in cells if row["method"] == LEAVE_ONE_OUT) - 1


def _matches(*differences: Difference) -> bool | None:
    """Whether no difference is below the margin; None where an interval does not say."""
    if all(one.low > -_MATCHES for one in differences):
        return True
    return False if any(one.high < -_MATCHES for one in differences) else None
