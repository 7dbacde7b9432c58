"""Direct against total effects of layers, and what repairs a head: other heads, MLPs, the norm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.core.statistics import (
    Estimate,
    correlation,
    mean_estimate,
    rank_correlation,
    rank_correlation_estimate,
    ratio_estimator,
)
from mechspex.core.units import Unit
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.direct_effects import DirectEffects, Said, directions, of_task
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published, series
from mechspex.experiments.passages import PASSAGES
from mechspex.experiments.reproduction import Axes
from mechspex.models.load_model import Model, load_model
from mechspex.tasks.load_task import load_task
from mechspex.tasks.next_token import encode

EFFECTS = "answer's logit, whole layers: direct, and lost without the layer"
AGREE = "direct against total effect over prompts"
RESTORED = "what later layers restore of an attention layer that says something"
BY_DEPTH = "what is repaired of a head's direct effect, by depth"
PARTS = "what repairs it"
DIRECT, TOTAL, SLOPE, R2 = "direct", "total", "share restored (slope)", "R² of it"
REPAIRED, OF_GPT2 = "repaired", "GPT-2"
CLIPPED, OF_SUMS = "mean of clipped ratios", "ratio of sums"
# Tokens of a head: those on which it says most directly (Rushing & Nanda 2024).
_TOP = 0.02
# A layer says something if it says this share of what the one says that says most.
_SAYS = 0.05

Array = Float[np.ndarray, "..."]


def _numbers(tensor: Tensor) -> Array:
    return tensor.double().cpu().numpy()


def _loaded(model: Any) -> Model:
    return load_model(model) if isinstance(model, str) else model


def _row(panel: str, named: str, x: Any, told: Estimate) -> dict[str, Any]:
    return {"panel": panel, "series": named, "x": x, "y": told.value, "low": told.low,
            "high": told.high}  # fmt: skip


def _by_layer(said: Said) -> dict[str, Array]:
    """What each layer says: {part: ``[set, prompt, layer]``}."""
    found = {"attention": _numbers(said.heads[:, :, 0].sum(-1))}
    if said.mlps.shape[-1]:
        found["MLP"] = _numbers(said.mlps[:, :, 0])
    return found


def _layers(
    model: Any, task: str, n_prompts: int, n_others: int, seed: int
) -> list[dict[str, Any]]:
    """The whole layers: what each says, what is lost without it, what later ones then restore."""
    loaded = _loaded(model)
    effects = of_task(loaded, load_task(task, loaded, n_prompts=n_prompts, seed=seed), centred=True)
    layers, heads = range(loaded.cfg.n_layers), range(loaded.cfg.n_heads)
    sets = {"attention": [[Unit("head", layer, n) for n in heads] for layer in layers]}
    if not loaded.cfg.attn_only:
        sets["MLP"] = [[Unit("mlp", layer, 0)] for layer in layers]
    clean = effects.without([[]], {})
    value, says = _numbers(clean.value)[0, :, 0], _by_layer(clean)
    rng = np.random.default_rng(seed)
    others = [np.roll(cycle, 1)[np.argsort(cycle)] for cycle in
              (rng.permutation(n_prompts) for _ in range(n_others))]  # fmt: skip
    rows = []
    for part, of_part in sets.items():
        runs = [effects.without(of_part, effects.of_rows(other.tolist())) for other in others]
        lost = np.stack([value - _numbers(run.value)[:, :, 0] for run in runs])
        for layer in layers:
            direct, total = says[part][0, :, layer], lost[:, layer].mean(axis=0)
            rows += [
                _row(EFFECTS, f"{part}, {DIRECT}", layer, mean_estimate(direct)),
                _row(EFFECTS, f"{part}, {TOTAL}", layer, mean_estimate(total)),
                _row(AGREE, part, layer, _agreement(direct, total)),
            ]
        if part == "attention":
            rows += _restored(says, [_by_layer(run) for run in runs])
    return rows


def _agreement(direct: Array, total: Array) -> Estimate:
    return rank_correlation_estimate(rank_correlation(direct, total), len(direct))


def _restored(says: dict[str, Array], runs: list[dict[str, Array]]) -> list[dict[str, Any]]:
    """The slope of what later layers say more on what an ablated attention layer says less."""
    rows = []
    says_most = np.abs(says["attention"][0].mean(axis=0))
    for layer in np.flatnonzero(says_most[:-1] > _SAYS * says_most.max()).tolist():
        less = [says["attention"][0, :, layer] - run["attention"][layer, :, layer] for run in runs]
        more = [
            sum(
                (run[part][layer] - says[part][0])[:, layer + (part == "attention") :].sum(axis=1)
                for part in says
            )
            for run in runs
        ]
        rows += [
            _row(RESTORED, SLOPE, layer, _slope(np.stack(less), np.stack(more))),
            _row(RESTORED, R2, layer, _r_squared(np.concatenate(less), np.concatenate(more))),
        ]
    return rows


def _slope(less: Array, more: Array) -> Estimate:
    """Of the line through all resamples of all prompts, with its interval over prompts."""
    x, y = less - less.mean(), more - more.mean()
    if not x.any():
        return Estimate(*[float("nan")] * 3)
    return ratio_estimator((x * x).sum(axis=0), np.random.default_rng(0))((x * y).sum(axis=0))


def _r_squared(less: Array, more: Array) -> Estimate:
    return Estimate(correlation(less, more) ** 2, float("nan"), float("nan"))


def _of_passages(model: Model, passages: tuple[str, ...], length: int) -> DirectEffects:
    """The centred logit of each next token of the passages but the first."""
    ids = [encode(model.tokenizer, text, None) for text in passages]
    length = min(length, *(len(one) - 1 for one in ids))
    tokens = torch.tensor([one[: length + 1] for one in ids])
    return DirectEffects(model, tokens[:, :-1], directions(model, tokens[:, 2:]))


def _heads(model: Any, passages: tuple[str, ...], length: int) -> list[dict[str, Any]]:
    """Sums over each head's tokens, passage by passage: what it says less, and what repairs it."""
    loaded = _loaded(model)
    effects = _of_passages(loaded, passages, length)
    reference = effects.of_rows([*range(1, len(passages)), 0])
    clean = effects.without([[]], reference)
    n_heads = loaded.cfg.n_heads
    rows = []
    for layer in range(loaded.cfg.n_layers):
        heads = [[Unit("head", layer, n)] for n in range(n_heads)]
        run = effects.without(heads, reference)
        parts = _parts(clean, run, layer)
        own = _numbers(clean.heads[0, :, :, layer])
        # The tokens on which each head says most.
        n_top = max(1, round(_TOP * own[..., 0].size))
        for n in range(n_heads):
            chosen = np.argsort(-own[..., n].ravel(), kind="stable")[:n_top]
            passage = chosen // own.shape[1]
            at = {name: part[n].ravel()[chosen] for name, part in parts.items()}
            keep = at["direct"] > 0
            for one in np.unique(passage[keep]):
                here = keep & (passage == one)
                rows.append(
                    {
                        "layer": layer, "passage": int(one), "tokens": int(here.sum()),
                        **{name: float(part[here].sum()) for name, part in at.items()},
                        **{
                            f"{name}, clipped":
                            float(np.clip(part[here] / at["direct"][here], 0, 1).sum())
                            for name, part in at.items() if name != "direct"
                        },
                    }
                )  # fmt: skip
    return rows


def _parts(clean: Said, run: Said, layer: int) -> dict[str, Array]:
    """What a head of the layer says less, and what heads, MLPs and the norm make up, ``[head, row,
    read]``: Δ logit = −direct + heads + MLPs + norm."""
    n_heads = run.heads.shape[-1]
    change = run.heads - clean.heads
    own = torch.stack([change[n, :, :, layer, n] for n in range(n_heads)])
    heads = change.sum((-1, -2)) - own
    mlps = (run.mlps - clean.mlps).sum(-1)
    norm = (run.value - clean.value) - own - heads - mlps
    named = {"direct": -own, "heads": heads, "MLPs": mlps, "norm": norm}
    return {name: _numbers(part) for name, part in named.items()}


class _Repairs:
    """The repairs of all heads, by passage, with intervals over passages."""

    def __init__(self, sums: list[dict[str, Any]]) -> None:
        self._sums = sums
        self._passages = sorted({one["passage"] for one in sums})

    def of(self, names: tuple[str, ...], layer: int | None = None) -> Float[np.ndarray, " passage"]:
        """The sum of some quantities over the tokens of each passage."""
        return np.array(
            [
                sum(
                    one[name] for one in self._sums for name in names
                    if one["passage"] == passage and layer in (None, one["layer"])
                )
                for passage in self._passages
            ],
            dtype=float,
        )  # fmt: skip

    def share(self, *names: str, layer: int | None = None) -> Estimate:
        """Ratio of sums: what is repaired of what is said less."""
        direct = self.of(("direct",), layer)
        return ratio_estimator(direct, np.random.default_rng(0))(self.of(names, layer))

    def clipped(self, name: str) -> Estimate:
        """The mean over tokens of the ratio, each clipped to 0 … 1."""
        tokens = self.of(("tokens",))
        return ratio_estimator(tokens, np.random.default_rng(0))(self.of((f"{name}, clipped",)))

    def rows(self, n_layers: int) -> list[dict[str, Any]]:
        every = ("norm", "heads", "MLPs")
        rows = [
            _row(BY_DEPTH, REPAIRED, round(layer / (n_layers - 1), 3),
                 self.share(*every, layer=layer))
            for layer in range(n_layers)
        ]  # fmt: skip
        for name in every:
            rows += [_row(PARTS, CLIPPED, name, self.clipped(name)),
                     _row(PARTS, OF_SUMS, name, self.share(name))]  # fmt: skip
        return rows


def _claims(rows: list[dict[str, Any]], repairs: _Repairs) -> tuple[Claim, ...]:
    def of(panel: str, named: str) -> dict[int, dict[str, Any]]:
        return {row["x"]: row for row in rows if (row["panel"], row["series"]) == (panel, named)}

    agree = {part: [row["y"] for row in of(AGREE, part).values()] for part in ("attention", "MLP")}
    n_layers = len(agree["attention"])
    early, late = (
        {part: float(np.nanmedian(every[at])) for part, every in agree.items() if every}
        for at in (slice(0, -(-2 * n_layers // 3)), slice(-3, None))
    )
    direct, total = (of(EFFECTS, f"attention, {kind}") for kind in (DIRECT, TOTAL))
    says_most = max(abs(row["y"]) for row in direct.values())
    large = [x for x, row in direct.items() if abs(row["y"]) > _SAYS * says_most]
    more = [x for x in large if direct[x]["y"] > total[x]["y"]]
    slopes, fits = of(RESTORED, SLOPE), of(RESTORED, R2)
    restored = [x for x in slopes if slopes[x]["low"] > 0.5 and slopes[x]["high"] < 1]
    norm, clipped = repairs.share("norm"), repairs.clipped("norm")

    def medians(found: dict[str, float]) -> str:
        return ", ".join(f"{part} {r:.2f}" for part, r in found.items())

    return (
        Claim(
            "Direct and total effects of a layer agree little over prompts",
            all(r < 0.5 for r in early.values()),
            f"median r of the first two thirds of the layers: {medians(early)}",
        ),
        Claim(
            "In the last layers they do agree",
            all(r > 0.5 for r in late.values()),
            f"median r of the last three layers: {medians(late)}",
        ),
        Claim(
            "A layer says more than is lost without it",
            len(more) > len(large) / 2,
            f"{len(more)} of the {len(large)} attention layers that say most (layers "
            f"{', '.join(map(str, more))})",
        ),
        Claim(
            "Later layers restore about 70% of what an attention layer said, R² up to .92",
            bool(restored),
            "; ".join(
                f"layer {x}: {row['y']:.0%} [{row['low']:.0%}, {row['high']:.0%}], R² "
                f"{fits[x]['y']:.2f}"
                for x, row in slopes.items()
            ),
        ),
        Claim(
            "The norm repairs about 30% of a head's direct effect",
            True if norm.low > 0.2 else False if norm.high < 0.2 else None,
            f"{norm:.2f} as a ratio of sums; {clipped:.2f} as the mean of clipped ratios, which "
            "counts every token that the norm makes worse as 0",
        ),
    )


_DEPTHS = tuple(round(layer / 11, 3) for layer in range(12))
_PUBLISHED = (
    *series(BY_DEPTH, OF_GPT2, _DEPTHS,
            (-0.10, -0.13, -0.17, -0.18, -0.38, -0.37, -0.07, 0.27, 0.36, 0.50, 0.56, 0.33),
            "computed"),
    *series(PARTS, f"{OF_GPT2}, clipped", ("norm", "heads", "MLPs"), (0.32, 0.26, 0.27),
            "computed"),
    *series(PARTS, f"{OF_GPT2}, sums", ("norm", "heads", "MLPs"), (0.26, 0.15, -0.17),
            "computed"),
    Published("norm, clipped: Pythia-160m, GPT-2 medium, Pythia-410m", ".34, .30, .25",
              "computed"),
    Published("norm, ratio of sums: the same", "-.57, .18, .04", "computed"),
    Published("norm", "up to 30%", "stated"),
    Published("R² of what is restored, layer 23 of 32 (Chinchilla 7B)", 0.92, "stated"),
    Published("restored at middle layers", "about 70%", "stated"),
)  # fmt: skip


@experiment(FIGURES["self-repair"], _PUBLISHED)
def self_repair(asked: Asked) -> Measured:
    n_prompts, n_others = (64, 15) if asked.full else (32, 3)
    n_passages, length = (16, 64) if asked.full else (12, 32)
    rows = asked.cell(
        {"of": "layers", "prompts": n_prompts},
        partial(_layers, asked.model, asked.task, n_prompts, n_others, asked.seed),
    )
    repairs = _Repairs(
        asked.cell(
            {"of": "heads", "passages": n_passages},
            partial(_heads, asked.model, PASSAGES[:n_passages], length),
        )
    )
    n_layers = 1 + max(one["layer"] for one in repairs._sums)
    rows += repairs.rows(n_layers)
    return Measured(
        rows,
        Axes("layer", "logits"),
        _claims(rows, repairs),
        panel_axes={
            AGREE: Axes("layer", "Spearman's r"),
            RESTORED: Axes("layer", "share"),
            BY_DEPTH: Axes("depth of the head (0 first layer, 1 last)", "share (ratio of sums)"),
            PARTS: Axes("", "share of what the head says less", kind="bars"),
        },
    )
