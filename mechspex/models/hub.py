"""Hub names: one question tells whether there is such a model, before libraries ask for minutes."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from mechspex.core.errors import ModelError
from mechspex.models.folder import check_folder
from mechspex.models.shipped import SHIPPED

_SECONDS = 10


def hub_source(name: str) -> str:
    """From where a model of the Hub is loaded: its name, or its folder in the cache when offline.

    Without a network transformers asks for each file of a model six times, half a minute each;
    here the Hub is asked once.

    Raises:
        ModelError: no such model, or no network and none in the cache.
    """
    try:
        HfApi().model_info(name, timeout=_SECONDS)
        return name
    except HFValidationError:
        reason = "that is neither a folder here nor a name of the Hub"
    except HfHubHTTPError as error:
        reason = _first_line(error)
    except Exception as error:  # no network: its library has errors of its own
        reason = f"the Hub cannot be reached: {_first_line(error)}"
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            folder = Path(cached).parent
            check_folder(folder, needs_tokenizer=False)
            return str(folder)
    raise ModelError(
        f"model {name!r} could not be loaded ({reason}); name one of {', '.join(SHIPPED)}, a "
        "folder with config.json and *.safetensors, a GGUF file, or a Hub name (which needs the "
        "network unless it is in the Hub's cache)"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
