"""How the answers of every workflow read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from mechspex.core.kinds import ARROW
from mechspex.core.provenance import PIECE_BY_PIECE, Provenance, digest_of_parts
from mechspex.core.units import UnitSet
from mechspex.runs.cost import Cost

_EXACT = "exact for this one output: no interval"

# The share of what all units do below which an effect is small.
_SMALL = 0.05

# Of more rows than so many those are shown whose effect is at least so much of what all units do
# together, and those that are confirmed.
_FEW, _TINY = 12, 0.01

# Characters of a label in a table, of two units and of more.
_WIDE, _NARROW = 24, 18

_ESTIMATE = ("effect", "low", "high")

# With so many prompts a mean holds a tenth of each.
_MANY = 10
# The digests of what means over the prompts themselves are taken from: of one length, of several.
_OWN_PROMPTS = (None, digest_of_parts([PIECE_BY_PIECE]))
# Their means are over all positions as well.
_OF_WORDS = {"word", "hidden_word"}

_ONE_OUTPUT = (
    "one output: more of them say how far effects spread over outputs, and tests in random "
    "contexts (contexts = 32) over masks of the other units"
)


def subject(configuration: Mapping[str, str], units: UnitSet) -> str:
    """What was asked, in one line: task · model · units · ablation · metric, and the precision
    where that is not the model's own. A mean over few prompts is said to keep a share of each."""
    provenance = Provenance.of(configuration)
    kinds = {unit.kind for unit in units}
    kept = None if kinds <= _OF_WORDS else _own_share(provenance)
    if kept is not None:
        provenance = replace(provenance, ablation=f"{provenance.ablation} ({kept})")
    return " · ".join(provenance.in_words()) or units.description


def _own_share(provenance: Provenance) -> str | None:
    """What a reference that is a mean over the prompts themselves keeps of each of them.

    One over the number of prompts; more where a piece of a prompt has no match in some others.
    None where it is a tenth or less, and of means over calibration prompts.
    """
    n, over = provenance.n_prompts, provenance.ablation_digest
    if provenance.ablation != "mean" or n is None or not 1 < n < _MANY or over not in _OWN_PROMPTS:
        return None
    return f"1/{n}{'' if over is None else ' or more'} of it the prompt's own"


def percent(bound: float) -> str:
    """A share that is an upper bound, in per cent with a decimal, rounded up."""
    return f"{np.ceil(bound * 1_000 - 1e-9) / 1_000:.1%}"


def equivalence_in_words(within: float) -> str:
    """What is sure of how far a circuit is from the model; the share is infinite where nothing is.

    Args:
        within: `mechspex.Faithfulness.equivalent_within`.
    """
    if not np.isfinite(within):
        return "not surely equivalent to the model within any share of the behaviour"
    return f"equivalent to the model within {percent(within)} of the behaviour (95% sure)"


def metric_in_words(configuration: Mapping[str, str]) -> str:
    """What the value measures: ``logit difference``, or ``value`` where that is not known."""
    metric = Provenance.of(configuration).metric_name
    return "value" if metric is None else metric.replace("_", " ")


def strongest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of their effects' size."""
    return frame.sort_values("effect", key=np.abs, ascending=False, ignore_index=True)


def effect_tables(
    frame: pd.DataFrame,
    *,
    beside: str | None = None,
    most: int | None = None,
    scale: float | None = None,
) -> list[str]:
    """The rows of a frame of exact effects as lines: single units, then sets, strongest first.

    Args:
        frame: the effects, a row a set: ``units``, ``order``, ``effect``, ``low``, ``high``,
            ``confirmed``.
        beside: the column at the end of each line; none if not given.
        most: how many rows of each are shown; all if not given.
        scale: what all units do together. An interval that holds zero and lies within a twentieth
            of it decides as well: there is no effect of that size. Of many rows those below a
            hundredth of it are counted and not shown, unless they are confirmed.
    """
    alone = "units alone: effect of ablating one"
    together = "units together: joint effect less what the smaller sets predict"
    return [
        *_effect_table(alone, strongest(frame.query("order == 1")), beside, most, scale),
        *_told_twice(frame.query("order == 1")),
        *_effect_table(together, strongest(frame.query("order > 1")), beside, most, scale),
    ]


def _effect_table(
    title: str, frame: pd.DataFrame, beside: str | None, most: int | None, scale: float | None
) -> list[str]:
    if not len(frame):
        return []
    small = abs(scale or 0.0) * _SMALL
    tight = (frame["low"] > -small) & (frame["high"] < small) & ~frame["confirmed"]
    frame = frame.assign(tight=tight)
    tiny = abs(scale or 0.0) * _TINY
    matters = ~(frame["effect"].abs() < tiny) | frame["confirmed"] | (len(frame) <= _FEW)
    shown = frame.loc[matters].head(len(frame) if most is None else most)
    shown = shown.assign(units=shown["units"].map(_fitting))
    width = max((len(units) for units in shown["units"]), default=0)
    n_confirmed = np.count_nonzero(frame["confirmed"])
    sure = f"{n_confirmed:,} of {len(frame):,} confirmed"
    n_tight = np.count_nonzero(tight)
    if n_tight:
        share = f"{_SMALL:.0%} of clean − all ablated"
        sure = f"{sure}, {n_tight:,} surely below {small:.2g}, {share}"
    # Without a spread over outputs there are no intervals; a term that failed has none either.
    exact_alone = bool(frame["low"].isna().all() and frame["effect"].notna().any())
    if exact_alone:
        sure = f"{_EXACT}, {f'{sure} in contexts' if n_confirmed else 'nothing is confirmed'}"
    lines = [
        "",
        f"{title} (basis: ablated; {sure})",
        f"  {'':{width}} order   exact   interval{beside or '':>18}".rstrip(),
    ]
    below = f"   below {small:.2g}"
    for row in shown.to_dict("records"):
        in_doubt = not exact_alone or n_confirmed
        no_remark = row["confirmed"] or not np.isfinite(row["effect"]) or not in_doubt
        interval = " " * 14 if exact_alone else f"[{row['low']:+.2f}, {row['high']:+.2f}]"
        lines.append(
            f"  {row['units']:{width}} {row['order']:5d} {row['effect']:+7.3f}   "
            f"{interval}"
            f"{'' if beside is None else f' {row[beside]:+10.3f}'}"
            f"{'' if no_remark else below if row['tight'] else '   not confirmed'}"
        )
    if len(shown) < len(frame):
        below = f", below {tiny:.2g}, {_TINY:.0%} of clean − all ablated" if most is None else ""
        lines.append(f"  … and {len(frame) - len(shown):,} weaker ones{below}")
    return lines


def _told_twice(singles: pd.DataFrame) -> list[str]:
    """Parts of a model that have the effect of one edge out of them: each is in every set twice."""
    rows = {row["units"]: row for row in singles.to_dict("records") if row["confirmed"]}
    same = [
        (part, edge)
        for edge, told in rows.items()
        if (part := edge.partition(ARROW)[0]) != edge
        and part in rows
        and all(np.isclose(rows[part][key], told[key], rtol=1e-4) for key in _ESTIMATE)
    ]
    if not same:
        return []
    named = "; ".join(f"{part} and {edge}" for part, edge in same)
    return [f"  one effect, told twice, alone and in every set: {named}"]


def _fitting(units: str) -> str:
    """Units that stand together, long labels cut in their middle so that a line holds several."""
    labels = units.split(" × ")
    width = {1: len(units), 2: _WIDE}.get(len(labels), _NARROW)
    return " × ".join(
        one if len(one) <= width else f"{one[: width - 8].rstrip()} … {one[-5:].lstrip()}"
        for one in labels
    )


def last_lines(
    cost: Cost, n_outputs: int, *, level: float, tested: str, folder: Path | None, contexts: int = 0
) -> list[str]:
    """The last lines: what the intervals are about, what it cost, where it is kept."""
    over = f"outputs and {contexts:,} contexts" if contexts else "outputs"
    about = f"intervals over {over}; false discovery rate {level:g} among the {tested}"
    lines = [
        "",
        about if n_outputs > 1 or contexts else _ONE_OUTPUT,
        cost.line(n_outputs),
    ]
    return lines if folder is None else [*lines, f"saved in {folder}"]
