"""A model by its name, so that another process can load the same one."""

from __future__ import annotations

import os
from pathlib import Path

from mechspex.models.load_model import Model, load_model

# The model that was loaded last by its name; two may not fit.
_LOADED: dict[tuple[str, str, str], Model] = {}


def name_of(model: Model) -> dict[str, str]:
    """What `loaded` takes.

    Whether the model was changed since it was loaded by this name, only its weights tell.
    """
    name, first = str(model.cfg.model_name), next(model.original_model.parameters())
    folder = Path(name).expanduser()
    return {
        "name": str(folder.absolute()) if folder.exists() else name,
        "dtype": str(first.dtype).removeprefix("torch."),
        "device": str(first.device),
    }


def loaded(name: str, dtype: str, device: str) -> Model:
    """The model of this name, loaded once; on ``$MECHSPEX_DEVICE`` where that is set.

    Args:
        name: a shipped model's name, a folder, a GGUF file or a Hub name.
        dtype: the dtype of its weights.
        device: where it is loaded otherwise.
    """
    key = name, dtype, os.environ.get("MECHSPEX_DEVICE") or device
    if key not in _LOADED:
        _LOADED.clear()
        _LOADED[key] = load_model(name, dtype=dtype, device=key[2])
    return _LOADED[key]
