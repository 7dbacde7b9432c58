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
        precision: the other one.
        rms: root of the mean squared difference.
        largest: absolute difference.
        correlation: of the two.
        n_masks: how many masks.
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
        """The error of values `measured` in a precision, beside `exact` ones."""
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
