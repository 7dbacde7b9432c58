"""The masks that scored an explanation, drawn again."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from mechspex.core.errors import MechspexError
from mechspex.explanation.designs import find_masks
from mechspex.explanation.explanation import Explanation
from mechspex.explanation.mask_search import fresh_masks
from mechspex.explanation.plan import n_held_out


def held_out_masks(explanation: Explanation) -> Bool[np.ndarray, "mask unit"] | None:
    """The masks on which `Explanation.r2` was scored, drawn again from the settings.

    Some of them may have had no finite value. Whoever uses them checks that they give the same R².

    Args:
        explanation: the answer.

    Returns:
        The masks; None where all masks were measured, or the settings are not those of a search.
    """
    settings, n_units = explanation.settings, len(explanation.units)
    if explanation.recovery.exact:
        return None
    try:
        # SPEX's design is called by its sizes: "SPEX design: 3 groups × …".
        name = str(settings["design"]).split()[0].lower()
        keep, seed = settings["keep"], settings["seed"]
        base = find_masks(name, keep).draw(n_units, settings["budget"], seed)
        wanted = n_held_out(len(base), settings.get("target_r2"))
    except (KeyError, IndexError, TypeError, MechspexError):
        return None
    return fresh_masks(base, keep, seed, wanted)
