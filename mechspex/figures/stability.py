"""How sure recovered terms are: intervals, and how often half of the masks find them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from mechspex.core.units import Term
from mechspex.figures.style import (
    INK,
    PALE,
    PAPER,
    POSITIVE,
    Picture,
    bare,
    entitle,
    finish,
    in_ink,
    nothing,
    short,
)


@runtime_checkable
class TermEvidence(Protocol):
    """What masks say of each term of a recovered function."""

    @property
    def terms(self) -> tuple[Term, ...]: ...
    @property
    def coefficients(self) -> Float[np.ndarray, " term"]: ...
    @property
    def intervals(self) -> Float[np.ndarray, "term 2"]: ...
    @property
    def discovered(self) -> Bool[np.ndarray, " term"]: ...

    @property
    def selected(self) -> Float[np.ndarray, " term"]:
        """The share of random halves of the masks in which the term is picked again."""
        ...


def stability(
    evidence: TermEvidence,
    names: Sequence[str] | None = None,
    *,
    most: int = 20,
    quantity: str = "fourier coefficient",
    heading: str = "How sure the recovered terms are",
) -> Figure:
    """The largest terms with their intervals; beside each, how often half of the masks pick it.

    Args:
        evidence: the evidence to draw.
        names: the name of each unit; its column number if not given.
        most: how many terms are drawn, the largest.
        quantity: what the coefficients are, with their unit.
        heading: the title.
    """
    n = min(most, len(evidence.terms))
    figure = Picture(figsize=(8.2, 0.24 * max(n, 3) + 1.6), layout="constrained", facecolor=PAPER)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    if not n:
        right.remove()
        return nothing(figure, None, left, heading, "no term to show")
    last = max((column for term in evidence.terms for column in term), default=0)
    labels = list(map(str, range(last + 1))) if names is None else names
    rows, values = np.arange(n)[::-1], evidence.coefficients[:n]
    reach = np.nan_to_num(np.abs(evidence.intervals[:n].T - values))
    colours = [POSITIVE if sure else PALE for sure in evidence.discovered[:n]]
    left.errorbar(values, rows, xerr=reach, fmt="none", ecolor=INK, elinewidth=0.9, zorder=1)
    left.scatter(values, rows, c=colours, s=32, edgecolors=INK, linewidths=0.6, zorder=2)
    terms = [
        short(" × ".join(short(labels[column], 22) for column in term), 50)
        for term in evidence.terms[:n]
    ]
    finish(left, terms[::-1], quantity)
    right.barh(rows, np.nan_to_num(evidence.selected[:n]), color=colours, height=0.7)
    right.set(xlim=(0, 1), xlabel="share of halves that pick it")
    right.tick_params(axis="y", length=0, labelleft=False)
    bare(right)
    note = "line: interval; blue: discovered at the false discovery rate; grey: not"
    if np.isnan(evidence.selected[:n]).all():
        note += "; selection was not repeated"
    entitle(figure, None, left, heading, note)
    return in_ink(figure, None)
