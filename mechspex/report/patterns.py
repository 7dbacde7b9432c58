"""Where heads look, for the page: recorded once, when a run is made, and kept in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mechspex.components.attention_patterns import AttentionPatterns, attention_patterns
from mechspex.components.component_values import ComponentValues
from mechspex.core.errors import AblationError
from mechspex.runs.run import may_be_written

PATTERNS = "attention_patterns.json"

# Numbers that a run keeps and a page shows at most: heads × tokens². A page stays below 3 MB.
_MOST_NUMBERS = 250_000


def keep_patterns(values: ComponentValues, folder: Path) -> None:
    """Record where the heads among the units look on the first prompt, and keep it with the run.

    Nothing is kept where no unit is a head, the model does not show its patterns, the prompt is so
    long that a page could not hold them, or the folder may only be read.

    Args:
        values: the value function of a run.
        folder: the folder of that run.
    """
    task = values.task
    heads = {f"L{u.layer}H{u.number}": None for u in values.units if u.kind == "head"}
    if not heads or not may_be_written(folder):
        return
    try:
        found = attention_patterns(
            values.model, task.prompts[0], list(heads), prepend_bos=task.prepend_bos
        )
    except AblationError:
        return
    if found.patterns.size <= _MOST_NUMBERS:
        replace(found, patterns=found.patterns.round(4)).save(folder / PATTERNS)


def shown_patterns(folder: Path | None) -> dict[str, Any] | None:
    """The patterns that lie in a run's folder, as the page holds them; None where none do.

    Args:
        folder: the folder of the run; None where it has none.

    Returns:
        The tokens, and {head: the attention in thousandths, a row a token}.
    """
    if folder is None or not (folder / PATTERNS).exists():
        return None
    found = AttentionPatterns.load(folder / PATTERNS)
    if found.patterns.size > _MOST_NUMBERS:
        return None
    return {
        "tokens": list(found.tokens),
        "heads": {
            name: np.rint(1000 * pattern).astype(int).tolist()
            for name, pattern in zip(found.heads.names, found.patterns, strict=True)
        },
    }
