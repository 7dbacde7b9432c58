"""Answers to make pages of: planted functions of heads, and of parts with hostile names."""

import numpy as np

import mechspex as mx
from mechspex.core.units import Unit, UnitSet

HEADS = UnitSet(tuple(Unit("head", layer, number) for layer in range(6) for number in range(5)))
PROMPTS = ("When Ann and Bo met, Bo saw", "When Cy and Di met, Di saw", "x < y & z", "four")

FIRED = "document.documentElement.dataset.fired=1"
# Names of outputs; pandas holds no lone surrogate, so that units have none.
HOSTILE = [
    f"<script>{FIRED}</script>",
    f'"><img src=x onerror="{FIRED}">',
    f"</script><script>{FIRED}</script>",
    "<!--<script>",
    f"' onfocus='{FIRED}' autofocus='",
    "line\u2028and\u2029line",
    "turned \u202eround\u2069",
    "lone \ud800 surrogate",
    "{{ 7 * 7 }}{% raw %}",
    "]]>\x00\x1b[31m",
]


class Named:
    """A value function with names for its outputs: anything of its shape is one."""

    def __init__(self, function, units, outputs):
        self.function, self.units, self.outputs = function, units, outputs
        self.n_units = len(units)

    def __call__(self, masks):
        return self.function(masks)


def heads_values(shift: float = 0.0) -> Named:
    """Singles, pairs of either kind, a set of three, and many small pairs that stay unfound."""

    def values(masks):
        kept = masks.astype(float)
        ablated = 1 - kept
        mean = 4.0 - 2.0 * ablated[:, 28] - 1.0 * ablated[:, 21] + 0.5 * ablated[:, 13]
        mean -= 1.5 * ablated[:, 11] * ablated[:, 17] + 1.2 * ablated[:, 3] * ablated[:, 9]
        mean += 0.9 * ablated[:, 21] * ablated[:, 28] * ablated[:, 13]
        # Many small effects, which no decoder finds all of.
        rest = np.random.default_rng(5).normal(size=(30, 30)) * 0.05
        mean += np.einsum("mi,ij,mj->m", ablated, rest, ablated)
        return np.stack([mean * scale + shift for scale in (0.9, 1.0, 1.05, 1.1)], axis=1)

    return Named(values, HEADS, PROMPTS)


def hostile_values() -> Named:
    """Parts and outputs whose names would do harm on a page that is not careful."""

    def values(masks):
        both = 2.0 * masks[:, 0] + 3.0 * (masks[:, 1] & masks[:, 2]) + masks[:, 7]
        return np.stack([both * (1 + 0.1 * place) for place in range(len(HOSTILE))], axis=1)

    labels = [text.replace("\ud800", "") for text in HOSTILE]
    return Named(values, mx.parts(labels), tuple(HOSTILE))
