"""Seconds of measuring and decoding until a function is recovered well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.r2_samples import (
    DECODERS,
    DENSITIES,
    SPEX,
    curve,
    masks_needed,
    r2_samples,
)
from mechspex.experiments.reproduction import Axes

LEVELS = (0.7, 0.8, 0.9, 0.95)


def seconds_needed(points: Mapping[int, Mapping[str, Any]], level: float) -> dict[str, float]:
    """What reaching a level of R² takes: masks, seconds of measuring and of decoding.

    Between two numbers of masks all three lie on a line between logarithms; empty where the level
    is not reached.

    Args:
        points: {number of masks: a row with ``y``, ``seconds`` and ``seconds_measuring``}.
        level: the R² wanted.
    """
    numbers, rows = list(points), list(points.values())
    masks, place, part = masks_needed(numbers, [row["y"] for row in rows], level)
    if not math.isfinite(masks):
        return {}
    after = rows[min(place + 1, len(rows) - 1)] if part else rows[place]
    decoding, measuring = (
        rows[place][name] ** (1 - part) * after[name] ** part
        for name in ("seconds", "seconds_measuring")
    )
    return {"masks": masks, "decoding": decoding, "measuring": measuring}


@experiment(
    FIGURES["wall-clock"],
    (
        Published("ProxySPEX against SPEX", "about 3 (DistilBERT) and 5 (CLIP) times faster",
                  "stated"),
        Published("seconds of SPEX, hard decoding, 8 to 1,023 words",
                  "4.9 4.0 4.0 3.5 3.6 4.4 4.0 4.8", "result files"),
        Published("seconds of SPEX, soft decoding, 8 to 1,023 words",
                  "24.0 26.2 22.6 20.7 20.6 22.3 20.9 22.6", "result files"),
    ),
)  # fmt: skip
def wall_clock(asked: Asked) -> Measured:
    run = None
    if asked.folder is not None:
        run = asked.folder.parent / ("figure-r2-samples" + ("-full" if asked.full else ""))
    drawn = r2_samples(
        model=asked.model, task=asked.task, full=asked.full, seed=asked.seed, run=run,
        progress=asked.progress,
    )  # fmt: skip
    rows, found = [], {}
    for keep in DENSITIES:
        for series in (*DECODERS, SPEX):
            points = curve(drawn.rows, series, keep)
            for level in LEVELS if points else ():
                took = seconds_needed(points, level)
                if not took:
                    continue
                found[keep, series, level] = took
                panel = next(iter(points.values()))["panel"]
                rows.append(
                    {
                        "panel": panel, "series": series, "x": level, "low": None, "high": None,
                        "y": took["decoding"] + took["measuring"], **took,
                    }
                )  # fmt: skip
    return Measured(
        rows, Axes("R² on fresh masks", "seconds, measuring and decoding"), _claims(found)
    )


def _claims(found: Mapping[Any, Mapping[str, float]]) -> tuple[Claim, ...]:
    """ProxySPEX against SPEX at p = ½, at every level that both reach."""
    factors = {}
    for level in LEVELS:
        ours, theirs = (found.get((0.5, series, level)) for series in ("proxyspex", SPEX))
        if ours and theirs:
            factors[level] = tuple((one["decoding"] + one["measuring"]) for one in (theirs, ours))
    if not factors:
        return ()
    one = next(iter(found.values()))
    told = [f"{a / b:.1f} ({a:.0f} against {b:.0f} s) at R² {level:g}"
            for level, (a, b) in factors.items()]  # fmt: skip
    return (
        Claim(
            "ProxySPEX is three to five times faster than SPEX, measuring and decoding",
            min(a / b for a, b in factors.values()) >= 3,
            f"{', '.join(told)}; a mask takes {1000 * one['measuring'] / one['masks']:.3g} ms",
        ),
    )
