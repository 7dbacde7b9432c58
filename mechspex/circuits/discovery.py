"""What the search for a circuit found: circuits of every size, and the small faithful one."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.faithfulness import Faithfulness
from mechspex.set_functions.set_function import SetFunction


@dataclass(frozen=True)
class Discovery:
    """Circuits of every size, and the one that is small and faithful.

    Attributes:
        circuit: the smallest circuit that is faithful on the search's outputs, with its exact
            scores and links on held-out outputs.
        function: the set function recovered from all masks of the search.
        best: {size: the units that do most by themselves}.
        matching: {size: the units that come nearest to the whole model}.
        faithfulness: the exact scores of `circuit`.
        front: one row a size, on the search's outputs: the predicted and the measured value of the
            best subset, its faithfulness, and as ``matching`` the faithfulness of the subset
            nearest to the whole model.
        masks: how many masks were measured to find and to score it; a gradient counts as a mask.
    """

    circuit: Circuit
    function: SetFunction
    best: dict[int, tuple[int, ...]]
    matching: dict[int, tuple[int, ...]]
    faithfulness: Faithfulness
    front: pd.DataFrame
    masks: int

    def __str__(self) -> str:
        return f"{self.circuit}\n\n{self.faithfulness}\n{self.masks:,} masks"
