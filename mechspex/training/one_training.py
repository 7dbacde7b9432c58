"""One call of a training function, by itself in a process: nothing heavy is loaded for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from mechspex.core.errors import MechspexError

TrainingFunction = Callable[..., Any]
"""Rows that are kept ``int64[row]``, and a seed where it takes one → values ``[target]``."""


def train_or_fail(
    function: TrainingFunction, seed: tuple[int, ...], rows: Int[np.ndarray, " row"]
) -> tuple[Any, str | None]:
    """What the function returned, or the error it raised."""
    try:
        return function(rows, *seed), None
    except MechspexError:
        raise
    except Exception as error:  # whatever a training of somebody's own may meet on few examples
        return None, repr(error)
