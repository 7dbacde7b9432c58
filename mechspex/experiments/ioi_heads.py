"""Direct and ablation effects of all heads, before and after the strongest are knocked out."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from mechspex.core.statistics import (
    Estimate,
    discovered,
    mean_estimate,
    ratio_estimator,
    standard_error,
    two_sided_p,
)
from mechspex.core.units import Unit
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.direct_effects import of_task
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.reproduction import Axes
from mechspex.models.load_model import load_model
from mechspex.tasks.load_task import load_task

DIRECT, ABLATED, AFTER = "direct effect", "effect of ablation", "direct effect, strongest gone"
CHANGED = "heads that change most"
BEFORE_BAR, AFTER_BAR = "before", "after the strongest are gone"
STRONGEST = 3
# A backup adds at least so much of the logit difference (Wang et al. 2022, Figure 15).
LEAST = 0.02
_LEVEL = 0.05
# Heads in the bars.
_SHOWN = 10

Effects = Float[np.ndarray, "head prompt"]


def _effects(model: Any, task: str, n_prompts: int, seed: int) -> dict[str, Any]:
    """Effects on the logit difference of each held-out prompt."""
    loaded = load_model(model) if isinstance(model, str) else model
    drawn = load_task(task, loaded, n_prompts=2 * n_prompts, seed=seed)
    chosen_on, shown = (of_task(loaded, part) for part in drawn.split(n_prompts, n_prompts))
    cfg = loaded.cfg
    heads = [Unit("head", layer, n) for layer in range(cfg.n_layers) for n in range(cfg.n_heads)]
    alone = [[head] for head in heads]

    def change(effects: Any, sets: list[list[Unit]], frozen: Any = None, without: Any = ()) -> Any:
        """The change of the logit difference, set by set, from where `without` is gone."""
        values = effects.without([list(without), *sets], effects.mean(), frozen=frozen).value
        values = values[:, :, 0].double().cpu().numpy()
        return values[0], values[1:] - values[0]

    _, on_others = change(chosen_on, alone, chosen_on.clean)
    strongest = [heads[i] for i in np.argsort(on_others.mean(axis=1), kind="stable")[:STRONGEST]]
    clean, direct = change(shown, [*alone, strongest], shown.clean)
    _, ablated = change(shown, [*alone, strongest])
    gone = shown.activations(strongest, shown.mean())
    _, after = change(shown, alone, gone)
    return {
        "heads": heads, "strongest": strongest, "clean": clean, "direct": direct[:-1],
        "ablated": ablated[:-1], "after": after, "said": -direct[-1], "lost": -ablated[-1],
    }  # fmt: skip


def _row(panel: str, series: str, x: Any, effect: Float[np.ndarray, " prompt"]) -> dict[str, Any]:
    told = mean_estimate(effect)
    return {"panel": panel, "series": series, "x": x, "y": told.value, "low": told.low,
            "high": told.high}  # fmt: skip


def _cell(model: Any, task: str, n_prompts: int, seed: int) -> list[dict[str, Any]]:
    found = _effects(model, task, n_prompts, seed)
    heads, gone = found["heads"], set(found["strongest"])
    rows = [
        _row(panel, f"head {head.number}", head.layer, effects)
        for panel, every in ((DIRECT, "direct"), (ABLATED, "ablated"), (AFTER, "after"))
        for head, effects in zip(heads, found[every], strict=True)
        if not (every == "after" and head in gone)
    ]
    change: Effects = found["after"] - found["direct"]
    left = [i for i, head in enumerate(heads) if head not in gone]
    most = sorted(left, key=lambda i: -abs(change[i].mean()))[:_SHOWN]
    rows += [
        _row(CHANGED, series, heads[i].name, found[every][i])
        for series, every in ((BEFORE_BAR, "direct"), (AFTER_BAR, "after"))
        for i in most
    ]
    return [*rows, _numbers(found, change, left)]


def _numbers(found: dict[str, Any], change: Effects, left: list[int]) -> dict[str, Any]:
    """What the claims are about."""
    names = [head.name for head in found["heads"]]
    share = ratio_estimator(found["clean"], np.random.default_rng(0))
    error = standard_error(change[left])
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(error > 0, change[left].mean(axis=1) / error, 0)
    sure = discovered(two_sided_p(t, change.shape[1] - 1), _LEVEL)
    confirmed = [i for i, holds in zip(left, sure.tolist(), strict=True) if holds]
    before, after = (found[every].mean(axis=1) for every in ("direct", "after"))
    supports, opposes = (
        [mean_estimate(one) for one in found[every]] for every in ("after", "direct")
    )
    least = LEAST * found["clean"].mean()
    by_all = np.corrcoef(before, found["ablated"].mean(axis=1))[0, 1]
    return {
        "strongest": [head.name for head in found["strongest"]],
        "lost": share(found["lost"]).to_list(),
        "said": share(found["said"]).to_list(),
        "made up": share(found["said"] - found["lost"]).to_list(),
        "backups": [names[i] for i in confirmed if after[i] < min(before[i], -least)],
        "oppose less": [names[i] for i in confirmed if before[i] > after[i] > 0],
        "turned": [names[i] for i in confirmed if before[i] > 0 > after[i]],
        "surely turned": [
            names[i] for i in confirmed if opposes[i].low > 0 and supports[i].high < 0
        ],
        "correlation": float(by_all),
    }


def _listed(names: list[str], most: int = 6) -> str:
    told = ", ".join(names[:most])
    return told + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


def _claims(numbers: dict[str, Any]) -> tuple[Claim, ...]:
    lost, said, made_up = (Estimate(*numbers[name]) for name in ("lost", "said", "made up"))
    backups, turned = numbers["backups"], numbers["turned"]
    return (
        Claim(
            "Knocking out the three strongest heads costs only 5% of the logit difference",
            lost.low <= 0.05 if lost.high < 0.1 else False if lost.low > 0.1 else None,
            f"{', '.join(numbers['strongest'])} gone: {lost:.0%}",
        ),
        Claim(
            "It costs less than these heads say directly: others make up for them",
            made_up.low > 0 if made_up.leaves_out_zero else None,
            f"{said:.0%} said directly, {lost:.0%} lost: {made_up:.0%} made up for",
        ),
        Claim(
            "Backup heads step in: eight then add more than 2% of the logit difference",
            bool(backups),
            f"{len(backups)} add more than before and more than 2% (false discovery rate 5%): "
            f"{_listed(backups)}; {len(numbers['oppose less'])} oppose less",
        ),
        Claim(
            "A head that opposed the answer turns and supports it (10.7 in GPT-2)",
            True if numbers["surely turned"] else None if turned else False,
            f"by both intervals {_listed(numbers['surely turned'])}; in the mean {_listed(turned)}",
        ),
    )


_PUBLISHED = (
    Published("drop of the logit difference with 9.9, 9.6 and 10.0 knocked out", "5%", "stated"),
    Published("heads above 2% after that", 8, "stated"),
    Published("heads that write the answer: 9.9, 9.6, 10.0; against it", "10.7, 11.10", "stated"),
    Published("logit difference (100,000 prompts)", 3.56, "stated"),
)


@experiment(FIGURES["ioi-heads"], _PUBLISHED)
def ioi_heads(asked: Asked) -> Measured:
    n_prompts = 64 if asked.full else 16
    *rows, numbers = asked.cell(
        {"prompts": n_prompts}, partial(_cell, asked.model, asked.task, n_prompts, asked.seed)
    )
    maps = Axes("layer", "change of the logit difference", kind="map")
    return Measured(
        rows,
        Axes("", "change of the logit difference", kind="bars"),
        _claims(numbers),
        panel_axes=dict.fromkeys((DIRECT, ABLATED, AFTER), maps),
    )
