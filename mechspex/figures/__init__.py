"""Figures of what was found; each returns a matplotlib figure and touches no global state."""

from mechspex.figures.heads import head_map, unit_map
from mechspex.figures.interactions import interactions
from mechspex.figures.method_lines import method_lines
from mechspex.figures.repair_map import self_repair_map
from mechspex.figures.tried_sets import tried_sets

__all__ = [
    "head_map", "interactions", "method_lines", "self_repair_map", "tried_sets", "unit_map",
]  # fmt: skip
