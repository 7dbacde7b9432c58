"""Decoders on measured values: attention heads of SmolLM2-135M on IOI (tests/data)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mechspex.decoders import decode

DATA = Path(__file__).parents[1] / "data" / "ioi_heads_p90.npz"


@pytest.mark.slow
def test_automatic_beats_the_additive_baseline_and_trees_from_500_masks():
    with np.load(DATA) as data:
        masks = np.unpackbits(data["masks_packed"], axis=1, count=270).astype(bool)
        values = data["values"].astype(np.float64).mean(axis=1)
    test = values[-1000:]
    scores = {}
    for name in ("additive", "proxyspex", "automatic"):
        answer = decode(masks[:500], values[:500], decoder=name)
        scores[name] = 1 - ((test - answer.predict(masks[-1000:])) ** 2).mean() / test.var()
    assert scores["additive"] > 0.91
    assert scores["automatic"] > 0.95
    assert scores["automatic"] > max(scores["additive"], scores["proxyspex"]) + 0.02
