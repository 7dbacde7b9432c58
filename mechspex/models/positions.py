"""How much text a model can read at once."""

from __future__ import annotations

from transformers import PreTrainedModel

from mechspex.models.load_model import Model

# Positions that can be computed beyond those the model was trained on.
_RELATIVE = ("rotary", "alibi", "relative_positional_bias", "none")


def trained_positions(model: Model) -> int | None:
    """How many tokens of a text the model was trained on; None where that is not known."""
    return int(model.cfg.n_ctx or 0) or None


def most_positions(model: Model) -> int | None:
    """How many tokens of a text the model can read; None where it computes as many as it takes."""
    # TransformerLens' own models hold tables of their positions, whatever kind they are.
    computed = isinstance(model.original_model, PreTrainedModel)
    if computed and str(model.cfg.positional_embedding_type) in _RELATIVE:
        return None
    return trained_positions(model)
