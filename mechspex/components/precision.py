"""What measuring in another precision costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

PRECISIONS = {"bf16": torch.bfloat16}


@dataclass(frozen=True)
class PrecisionError:
    """How far values in another precision are from those in the model's own.

    Measured on random masks, all prompts: in the metric's units, but for the correlation.

    Attributes:
        precision: the name of the other precision.
        rms: the root of the mean squared difference.
        largest: the largest absolute difference.
        correlation: Pearson's r of the values in both precisions.
        n_masks: how many masks were measured.
    """

    precision: str
    rms: float
    largest: float
    correlation: float
    n_masks: int

    @classmethod
    def between(
        cls,
        precision: str,
        measured: Float[np.ndarray, "mask prompt"],
        exact: Float[np.ndarray, "mask prompt"],
    ) -> PrecisionError:
        """The error of values in another precision.

        Args:
            precision: the name of that precision.
            measured: the values in it.
            exact: the values in the model's own.
        """
        return cls(
            precision=precision,
            rms=float(np.sqrt(((measured - exact) ** 2).mean())),
            largest=float(np.abs(measured - exact).max()),
            correlation=float(np.corrcoef(measured.ravel(), exact.ravel())[0, 1]),
            n_masks=len(exact),
        )

    def __str__(self) -> str:
        return (
            f"{self.precision}: error {self.rms:.2g} (largest {self.largest:.2g}), correlation "
            f"{self.correlation:.5f} with the model's own dtype on {self.n_masks} masks"
        )
