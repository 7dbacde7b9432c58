"""The figures of the literature that are drawn again here; nothing is loaded to list them."""

from __future__ import annotations

from mechspex.experiments.paper_figure import PaperFigure

SPEX = "SPEX, Kang et al. 2025"
PROXYSPEX = "ProxySPEX, Butler et al. 2025"
IOI = "IOI, Wang et al. 2022"
ACDC = "ACDC, Conmy et al. 2023"

_FIGURES = (
    PaperFigure(
        name="recovery",
        paper=f"{PROXYSPEX}, Figure 13",
        title="Which decoder recovers which function",
        shows="R² on fresh masks against the number of masks, for unrelated sets (peaks) and for "
        "sets with all their subsets (a complete hierarchy).",
        differs="64 units (the paper does not say how many it has); our own decoders beside trees, "
        "a forest, a network and the LASSO.",
        minutes=(3, 60),
    ),
    PaperFigure(
        name="shapley",
        paper=f"{PROXYSPEX}, Figures 8 and 14",
        title="Shapley values from few masks",
        shows="How many of the ten largest Shapley values are found, and the error of all of them, "
        "against the number of masks.",
        differs="The truth is exact: planted functions, whose Shapley values have a closed form; "
        "the paper takes an estimate of its rival's kind from 10,000 masks.",
        minutes=(1, 12),
    ),
    PaperFigure(
        name="or-gate",
        paper=f"{ACDC}, appendix; Hydra's toy",
        title="What a method says of an AND, an OR, a sum and of backups",
        shows="Which heads each method names, on models whose circuits are known.",
        differs="Heads of small models that are built in place of edges; the exact terms beside.",
        minutes=(0.2, 0.5),
    ),
)

FIGURES = {figure.name: figure for figure in _FIGURES}
"""{name in the shell: the figure}."""
