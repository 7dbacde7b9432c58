"""Models: TransformerLens bridges, loaded by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import boot_native
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from mechspex.core.errors import ModelError
from mechspex.models.shipped import SHIPPED, TINY, check_model_name
from mechspex.models.smollm2 import smollm2_folder
from mechspex.models.tokenizer import tokenizer_for_bridge

Model = TransformerBridge


def load_model(
    name: str | Path | Model | PreTrainedModel,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
) -> Model:
    """Load a model as a TransformerLens `TransformerBridge`, in evaluation mode.

    Args:
        name: ``"tiny"`` or ``"smollm2-135m"``, a local folder, a Hub name, or a bridge of your
            own, which is returned as it is.
        dtype: the dtype of the weights and of all arithmetic.
        device: ``"cpu"``, ``"cuda"``, …; the CPU if not given.

    Raises:
        ModelError: no such model or device, or a folder whose only weights are pickled.
        FetchError: SmolLM2 could not be fetched.
    """
    if isinstance(name, TransformerBridge):
        return name
    if not isinstance(name, str | Path):
        raise ModelError(
            f"{type(name).__name__} is not loaded by name; save it with model.save_pretrained("
            "folder) and its tokenizer likewise, and give the folder, or wrap it in a "
            "TransformerBridge of your own"
        )
    device = _checked_device("cpu" if device is None else device)
    if name == "tiny":
        model = _load_tiny(dtype, device)
    else:
        folder = smollm2_folder() if name == "smollm2-135m" else name
        model = _load_transformers(folder, dtype, device)
    return model.eval()


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"device {str(device)!r} cannot be used here ({reason}); try cpu"
        ) from None


def _load_tiny(dtype: torch.dtype, device: str | torch.device) -> Model:
    config = json.loads((TINY / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    weights = load_file(TINY / "model.safetensors")
    return native_model("tiny", config, tokenizer, weights, dtype=dtype, device=device)


def native_model(
    name: str,
    config: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, Tensor] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Model:
    """A small transformer of TransformerLens' own code, in evaluation mode.

    Args:
        name: the model's name.
        config: the fields of its configuration, by name.
        tokenizer: its tokenizer.
        weights: its whole state dict; random weights, by the configuration's seed, if not given.
        dtype: the dtype of the weights and of all arithmetic.
        device: the device that holds it.
    """
    model = boot_native(
        dict(config),
        tokenizer=tokenizer_for_bridge(tokenizer),
        model_name=name,
        dtype=dtype,
        device=device,
    )
    if weights is not None:
        model.load_state_dict(dict(weights), strict=True)
    return model.eval()


def _load_transformers(name: str | Path, dtype: torch.dtype, device: str | torch.device) -> Model:
    check_model_name(name)
    try:
        with _no_progress_bars():
            tokenizer = tokenizer_for_bridge(AutoTokenizer.from_pretrained(str(name)))
            return TransformerBridge.boot_transformers(
                str(name), dtype=dtype, device=device, tokenizer=tokenizer
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model {str(name)!r} could not be loaded ({reason}); name one of "
            f"{', '.join(SHIPPED)}, a folder with config.json and *.safetensors, or a Hub name "
            "(which needs the network unless it is in the Hub's cache)"
        ) from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Weights load in a second here; the bar of every tensor would only bury the output."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
