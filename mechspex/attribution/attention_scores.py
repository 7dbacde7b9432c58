"""Attention: how much the response looks at each part of a prompt, a baseline."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from mechspex.attribution.attribution import Attribution
from mechspex.core.checks import told
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.units import UnitSet


@runtime_checkable
class ReadWithAttention(Protocol):
    """What is read with attention: `mechspex.PromptValues`."""

    @property
    def units(self) -> UnitSet: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...

    def attention_paid(self) -> Float[np.ndarray, "unit output"]:
        """The mean attention to each unit from where each output is predicted."""
        ...


def _as_read(name: str, given: object) -> ReadWithAttention:
    """Reads the value function of a prompt.

    Raises:
        Refused: another one.
    """
    if not isinstance(given, ReadWithAttention):
        raise Refused(
            f"{name} = {told(given)}: attention is paid to the parts of a prompt; give "
            "mx.PromptValues(model, context, …)"
        )
    return given


@door(values=_as_read)
def attention_scores(values: ReadWithAttention) -> Attribution:
    """score_i = 1 / (L H T) Σ_l Σ_h Σ_t Σ_{k in unit i} A_{l, h}[t, k], from one forward.

    A_{l, h}[t, k] is what head h of layer l pays to token k of the prompt at position t, and t runs
    over the T positions that predict the tokens of the response: a share of attention, between 0
    and 1. It says where the model looks, not what follows from it, and knows of no sign; so it
    ranks units and predicts no value (the baseline of average attention in Cohen-Wang et al. 2024,
    Section 4).

    >>> import mechspex as mx
    >>> model = mx.load_model("tiny")
    >>> values = mx.PromptValues(model, "apple bird boat apple", by="word", response=" bird")
    >>> mx.attention_scores(values).to_pandas()["unit"].tolist()
    ['bird', 'boat', 'apple (2)', 'apple']

    Args:
        values: the value function of a prompt's parts; a question, or a span of its response, is
            an output.

    Raises:
        Refused: another value function, or one of the text alone.
        ModelError: a model that does not show its attention.
    """
    scores = values.attention_paid()
    outputs = tuple(values.outputs)
    return Attribution("attention", values.units, outputs, scores, np.zeros(len(outputs)), 1)
