"""Figures of what was found; each returns a matplotlib figure and touches no global state."""

from mechspex.figures.agreement import predicted_and_exact
from mechspex.figures.attention import attention
from mechspex.figures.bars import bars
from mechspex.figures.circuit import circuit_graph
from mechspex.figures.gallery import gallery
from mechspex.figures.heads import head_map, unit_map
from mechspex.figures.interactions import interactions
from mechspex.figures.learning import r2_by_masks
from mechspex.figures.method_lines import method_lines
from mechspex.figures.network import network
from mechspex.figures.orders import energy_by_order
from mechspex.figures.pairs import pair_matrix
from mechspex.figures.prompts import beeswarm, force
from mechspex.figures.repair_map import self_repair_map
from mechspex.figures.sizes import faithfulness_by_size, subset_front, values_by_size
from mechspex.figures.stability import stability
from mechspex.figures.text_effects import TextEffects
from mechspex.figures.tried_sets import tried_sets
from mechspex.figures.upset import upset
from mechspex.figures.waterfall import waterfall

__all__ = [
    "TextEffects",
    "attention",
    "bars",
    "beeswarm",
    "circuit_graph",
    "energy_by_order",
    "faithfulness_by_size",
    "force",
    "gallery",
    "head_map",
    "interactions",
    "method_lines",
    "network",
    "pair_matrix",
    "predicted_and_exact",
    "r2_by_masks",
    "self_repair_map",
    "stability",
    "subset_front",
    "tried_sets",
    "unit_map",
    "upset",
    "values_by_size",
    "waterfall",
]
