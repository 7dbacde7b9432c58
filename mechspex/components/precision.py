"""Measuring in another precision: whether it pays, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from mechspex.core.errors import ModelError
from mechspex.forward.machine import product_rate

# What ``auto`` tries first has the range of float32: nothing overflows in it.
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
AUTO = "auto"


def check_that_it_pays(precision: str, own: torch.dtype, device: torch.device) -> None:
    """Refuse a precision whose products are slower here than those of the model's own dtype.

    Processors without bfloat16 matrix units multiply in it 13 to 55 times as slowly as in float32.
    Both are measured once a process.

    Args:
        precision: the precision's name.
        own: the model's own dtype.
        device: where the model lies.

    Raises:
        ModelError: it does not pay; the message has both rates. Or it is the model's own.
    """
    if PRECISIONS[precision] == own:
        raise ModelError(f"precision {precision!r} is the model's own dtype; leave precision out")
    rate, rate_of_own = (_rate(device, dtype) for dtype in (PRECISIONS[precision], own))
    if rate <= rate_of_own:
        name = str(own).removeprefix("torch.")
        raise ModelError(
            f"precision {precision!r} does not pay on this {device.type}: {rate:,.3g} GFLOP/s, in "
            f"{name} {rate_of_own:,.3g}; leave precision out, or give 'auto'"
        )


@cache
def _rate(device: torch.device, dtype: torch.dtype) -> float:
    return product_rate(device, dtype)


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

        Raises:
            ModelError: values that are not finite: half precision ends at 65,504.
        """
        overflown = int((~np.isfinite(measured)).any(axis=1).sum())
        if overflown:
            raise ModelError(
                f"{overflown} of {len(measured)} masks have no finite value in {precision}, whose "
                "numbers end at "
                f"{torch.finfo(PRECISIONS[precision]).max:,.6g}; choose another precision"
            )
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
