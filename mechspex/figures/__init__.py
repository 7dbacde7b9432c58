"""Figures of what was found; each returns a matplotlib figure and touches no global state."""

from mechspex.figures.heads import head_map, unit_map
from mechspex.figures.interactions import interactions
from mechspex.figures.method_lines import method_lines
from mechspex.figures.network import network
from mechspex.figures.pairs import pair_matrix
from mechspex.figures.prompts import beeswarm, force
from mechspex.figures.repair_map import self_repair_map
from mechspex.figures.text_effects import TextEffects
from mechspex.figures.tried_sets import tried_sets
from mechspex.figures.upset import upset
from mechspex.figures.waterfall import waterfall

__all__ = [
    "TextEffects",
    "beeswarm",
    "force",
    "head_map",
    "interactions",
    "method_lines",
    "network",
    "pair_matrix",
    "self_repair_map",
    "tried_sets",
    "unit_map",
    "upset",
    "waterfall",
]
