"""How well a function is recovered from how many masks of a language model's heads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool

from mechspex.core.masks import Stream, sample_masks
from mechspex.core.value_function import ValueFunction
from mechspex.decoders.spex.bch import BchCode
from mechspex.decoders.spex.design import SpexDesign
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.decoder_scores import score
from mechspex.experiments.experiment import Asked, Measured, experiment, processors
from mechspex.experiments.ioi_masks import ioi_heads, shared
from mechspex.experiments.paper_figure import Claim, Published, series
from mechspex.experiments.reproduction import Axes
from mechspex.set_functions.r_squared import non_additive_share

DECODERS = ("additive", "proxyspex", "pursuit", "kernel", "automatic")
SPEX = "spex, own masks"
DENSITIES = (0.5, 0.9)
HELD_OUT = 500
# SPEX's design as it is published.
GROUPS, ORDER = 3, 5
# The bits of SPEX's bins, in small and in full.
BITS = {False: (1, 2, 3, 4), True: (4, 5, 6)}
# The R² at which masks are counted, and the smallest factor that the paper states.
LEVELS, LEAST = (0.7, 0.8, 0.9, 0.95, 0.98), 6.7

Masks = Bool[np.ndarray, "mask unit"]
Rows = Sequence[Mapping[str, Any]]


def sizes(n_units: int, full: bool) -> dict[float, list[int]]:
    """{density: the numbers of masks}: what SPEX takes with 2^b bins, and halves of that.

    Args:
        n_units: how many heads.
        full: the paper's size.
    """
    bits = {0.5: range(2, 7), 0.9: range(2, 6)} if full else {0.5: range(-2, 5), 0.9: range(-2, 4)}
    return {keep: [int(_one_bin(n_units) * 2.0**b) for b in bits[keep]] for keep in DENSITIES}


def _one_bin(n_units: int) -> int:
    """The masks of SPEX's design for each of its 2^b bins."""
    return GROUPS * (1 + BchCode(n_units, ORDER).n_parities)


def spex_design(n_units: int, n_bits: int, seed: int) -> SpexDesign:
    """SPEX's own masks, with 2^b bins."""
    n_masks = _one_bin(n_units) << n_bits
    return SpexDesign(n_units, n_masks, ORDER, n_groups=GROUPS, n_bits=n_bits, seed=seed)


def training_masks(n_units: int, n_masks: int, keep: float, seed: int) -> Masks:
    """The masks that decoders are given; fewer of them are the first of more."""
    return sample_masks(n_units, n_masks, keep=keep, seed=seed)


def held_out_masks(n_units: int, keep: float, seed: int) -> Masks:
    """The masks on which answers are judged."""
    return sample_masks(n_units, HELD_OUT, keep=keep, seed=(seed, Stream.FRESH))


def masks_needed(
    numbers: Sequence[int], r2: Sequence[float], level: float
) -> tuple[float, int, float]:
    """The number of masks from which on R² is at a level, on a line between log numbers.

    Args:
        numbers: the numbers of masks, ascending.
        r2: the R² with so many.
        level: the R² wanted.

    Returns:
        The number; the last place before it, and how far it lies towards the next. Infinity where
        the level is not reached; the first number where it is reached there.
    """
    reached = [number for number, one in enumerate(r2) if one >= level]
    if not reached:
        return math.inf, len(r2) - 1, 0.0
    place = reached[0]
    if place == 0:
        return float(numbers[0]), 0, 0.0
    part = (level - r2[place - 1]) / (r2[place] - r2[place - 1])
    number = numbers[place - 1] * (numbers[place] / numbers[place - 1]) ** part
    return number, place - 1, part


def _pace(values: ValueFunction, n_masks: int) -> Rows:
    """The seconds that one mask takes, all prompts together."""
    masks = sample_masks(values.n_units, n_masks, seed=0)
    values(masks[: min(n_masks, 32)])
    start = time.perf_counter()
    values(masks)
    return [{"seconds": (time.perf_counter() - start) / n_masks}]


def _todo(asked: Asked, values: ValueFunction) -> list[tuple[dict[str, Any], Callable[[], Rows]]]:
    """Key and measurement of every point: its masks are measured, and still to be decoded."""
    n_units, todo = values.n_units, []
    for keep, numbers in sizes(n_units, asked.full).items():
        panel = f"{n_units} heads, p = {keep:g}"
        fresh = held_out_masks(n_units, keep, asked.seed)
        truth = values(fresh).mean(axis=1).astype(np.float64)
        masks = training_masks(n_units, numbers[-1], keep, asked.seed)
        measured = values(masks)
        for n_masks in numbers:
            given = masks[:n_masks], measured[:n_masks], fresh, truth
            for decoder in DECODERS:
                key = {"panel": panel, "series": decoder, "x": n_masks, "keep": keep}
                todo.append((key, partial(score, *given, decoder, keep, None, asked.seed)))
        if keep != 0.5:
            continue
        for n_bits in BITS[asked.full]:
            design = spex_design(n_units, n_bits, asked.seed)
            given = design.masks, values(design.masks), fresh, truth
            key = {"panel": panel, "series": SPEX, "x": design.n_masks, "keep": keep}
            key["bits"] = n_bits
            todo.append((key, partial(score, *given, "spex", keep, design, asked.seed)))
    return todo


_BERT = tuple(1439 * 2**k for k in range(9))
_CLIP = tuple(192 * 2**k for k in range(9))
_PANELS = ("paper: Sentiment, 256 to 512 words", "paper: MS-COCO, 60 to 85 parts")
_V = "vector graphics"
_PUBLISHED = (
    *series(_PANELS[0], "additive", _BERT,
            (0.550, 0.585, 0.606, 0.616, 0.620, 0.623, 0.624, 0.624, 0.625), _V),
    *series(_PANELS[0], "proxyspex", _BERT,
            (0.642, 0.725, 0.779, 0.806, 0.820, 0.840, 0.860, 0.863, 0.865), _V),
    *series(_PANELS[0], SPEX, _BERT[1:],
            (0.259, 0.420, 0.565, 0.669, 0.754, 0.804, 0.843, 0.867), _V),
    *series(_PANELS[1], "additive", _CLIP,
            (0.508, 0.558, 0.587, 0.601, 0.608, 0.612, 0.614, 0.615, 0.615), _V),
    *series(_PANELS[1], "proxyspex", _CLIP,
            (0.418, 0.525, 0.633, 0.715, 0.764, 0.791, 0.828, 0.853, 0.865), _V),
    *series(_PANELS[1], SPEX, _CLIP[1:],
            (0.285, 0.322, 0.445, 0.547, 0.630, 0.699, 0.752, 0.796), _V),
    Published("masks of SPEX for each of ProxySPEX at R² .7, .75, .8",
              "12.8, 10.6, 8.6 (Sentiment), 8.9, 9.0, 6.7 (MS-COCO)", "stated"),
    Published("SPEX at b = 3 … 8, Sentiment, 64 to 127 words (LASSO .610 … .655)",
              ".423 .592 .706 .780 .834 .872", "result files"),
    Published("SPEX at b = 3 … 8, Sentiment, 256 to 511 words (LASSO .458 … .620)",
              ".158 .305 .466 .594 .690 .762", "result files"),
    Published("ProxySPEX over LASSO at α = 2 and 8, share of LASSO's R²",
              "+29%, +32% (Sentiment), +8%, +26% (MS-COCO)", "computed"),
)  # fmt: skip


@experiment(FIGURES["r2-samples"], _PUBLISHED)
def r2_samples(asked: Asked) -> Measured:
    heads = ioi_heads(asked)
    with shared(asked, heads) as values:
        n_timed = 1024 if asked.full else 64
        (pace,) = asked.cell({"timed": n_timed}, partial(_pace, heads, n_timed))
        rows = asked.cells(_todo(asked, values), processors() if asked.full else 1)
    alpha = values.n_units * math.log2(values.n_units)
    for row in rows:
        row["alpha"] = row["x"] / alpha
        row["seconds_measuring"] = row["x"] * pace["seconds"]
        additive = _as_many(curve(rows, "additive", row["keep"]), row["x"])
        row["non_additive"] = non_additive_share(row["y"], additive["y"])
    axes = Axes("masks", "R² on fresh masks", log=True)
    return Measured(rows, axes, tuple(_claims(rows)))


def curve(rows: Rows, name: str, keep: float) -> dict[int, Mapping[str, Any]]:
    """{number of masks: the row} of one series at one density, ascending."""
    own = [row for row in rows if row["series"] == name and row["keep"] == keep]
    return {row["x"]: row for row in sorted(own, key=lambda row: row["x"])}


def _claims(rows: Rows) -> list[Claim]:
    """ProxySPEX against SPEX and the LASSO at p = ½, and against the LASSO at .9."""
    proxy, lasso, spex = (curve(rows, name, 0.5) for name in ("proxyspex", "additive", SPEX))
    claims = [_fewer_masks(proxy, spex), *_over_lasso(proxy, lasso), _spex_passes(spex, lasso)]
    proxy, lasso = (curve(rows, name, 0.9) for name in ("proxyspex", "additive"))
    return [*claims, *_over_lasso(proxy, lasso, ", p = 0.9")]


def _fewer_masks(proxy: Mapping[int, Any], spex: Mapping[int, Any]) -> Claim:
    """How many masks SPEX takes for one of ProxySPEX until both are as good."""

    def needed(points: Mapping[int, Any], end: str, level: float) -> float:
        return masks_needed(list(points), [row[end] for row in points.values()], level)[0]

    told, holds = [], []
    for level in LEVELS:
        ours, theirs = needed(proxy, "y", level), needed(spex, "y", level)
        if not np.isfinite([ours, theirs]).all():
            reached = {"SPEX": theirs, "ProxySPEX": ours}
            missing = " and ".join(name for name, one in reached.items() if one == math.inf)
            told.append(f"R² {level:g}: not reached by {missing}")
            continue
        low = needed(spex, "high", level) / needed(proxy, "low", level)
        high = needed(spex, "low", level) / needed(proxy, "high", level)
        # With the fewest masks tried fewer may do as well.
        at_least, at_most = ours == min(proxy), theirs == min(spex)
        if at_least and at_most:
            continue
        bound = "at least " if at_least else "at most " if at_most else ""
        told.append(f"R² {level:g}: {bound}{theirs / ours:.1f} [{low:.1f}, {high:.1f}], "
                    f"{theirs:,.0f} against {ours:,.0f}")  # fmt: skip
        if low >= LEAST and not at_most:
            holds.append(True)
        else:
            holds.append(False if high < LEAST and not at_least else None)
    return Claim(
        "ProxySPEX needs about ten times fewer masks than SPEX at equal R² (6.7 to 12.8)",
        _decided(holds) if holds else None,
        "; ".join(told) or f"both at R² {LEVELS[-1]:g} with the fewest masks tried",
    )


def _over_lasso(proxy: Mapping[int, Any], lasso: Mapping[int, Any], where: str = "") -> list[Claim]:
    """With few masks the LASSO, with many ProxySPEX."""
    shared_numbers = [number for number in proxy if number in lasso]
    few = [number for number in shared_numbers if proxy[number]["alpha"] <= 1]
    many = [number for number in shared_numbers if 2 <= proxy[number]["alpha"] <= 8.5]
    claims = []
    if few:
        ahead = [_ahead(lasso[number], proxy[number]) for number in few]
        claims.append(
            Claim(
                f"The LASSO is ahead of ProxySPEX with few masks (α ≤ 1{where})",
                _decided(ahead),
                ", ".join(f"{_told(lasso[n])} against {_told(proxy[n])} at {n}" for n in few),
            )
        )
    if many:
        gains = [proxy[number]["y"] / lasso[number]["y"] - 1 for number in many]
        claims.append(
            Claim(
                f"ProxySPEX explains 15 to 25% more than the LASSO (α = 2 to 8{where})",
                min(gains) >= 0.15,
                ", ".join(
                    f"{gain:+.1%} ({_told(proxy[n])} against {_told(lasso[n])}) at {n:,}"
                    for gain, n in zip(gains, many, strict=True)
                ),
            )
        )
    return claims


def _spex_passes(spex: Mapping[int, Any], lasso: Mapping[int, Any]) -> Claim:
    """SPEX against the LASSO with as many masks."""
    pairs = [(row, _as_many(lasso, number)) for number, row in spex.items()]
    passed = [_ahead(*pair) for pair in pairs]
    return Claim(
        "SPEX needs enough bins to pass the LASSO",
        None if None in (passed[0], passed[-1]) else passed[-1] and not passed[0],
        ", ".join(f"{_told(a)} against {_told(b)} at b = {a['bits']}" for a, b in pairs),
    )


def _as_many(rows: Mapping[int, Any], n_masks: int) -> Mapping[str, Any]:
    """The row with so many masks, or with the most if it never has so many."""
    return rows[max(number for number in rows if number <= n_masks)]


def _decided(each: Sequence[bool | None]) -> bool | None:
    """Whether all hold; None where some do and some do not, or none of them is decided."""
    return each[0] if len(set(each)) == 1 else None


def _ahead(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool | None:
    """Whether one R² is above the other; None where their intervals meet."""
    if one["low"] > other["high"]:
        return True
    return False if one["high"] < other["low"] else None


def _told(row: Mapping[str, Any]) -> str:
    return f"{row['y']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
