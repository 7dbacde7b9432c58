"""Models: TransformerLens bridges, loaded by name."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import boot_native
from transformer_lens.model_bridge.sources.transformers import (
    determine_architecture_from_hf_config,
    get_hf_model_class_for_architecture,
)
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from mechspex.core.checks import Only, told
from mechspex.core.doors import door
from mechspex.core.errors import MechspexError, ModelError
from mechspex.models.folder import check_configuration, has_tokenizer
from mechspex.models.hub import hub_source
from mechspex.models.shipped import SHIPPED, TINY, check_model_name
from mechspex.models.smollm2 import smollm2_folder
from mechspex.models.tokenizer import tokenizer_for_bridge
from mechspex.models.whole_model import (
    WholeModels,
    gguf_model,
    gguf_tokenizer,
    merged,
    with_shared_weights,
)

Model = TransformerBridge


def as_model(name: str, given: object) -> Any:
    """Reads a model: a bridge as it is, a name or folder loaded.

    Raises:
        ModelError: something else, or what `load_model` refuses.
    """
    return (
        given if isinstance(given, TransformerBridge) else load_model(_model_or_name(name, given))
    )


def _model_or_name(name: str, given: object) -> Any:
    if isinstance(given, nn.Module | str | Path):
        return given
    raise ModelError(
        f"{name} = {told(given)}: a model is given by its name, its folder, or itself; this is a "
        f"{type(given).__name__}"
    )


def _as_tokenizer(name: str, given: object) -> Any:
    """Reads a tokenizer, or the name of the folder that has one."""
    if isinstance(given, PreTrainedTokenizerBase | str | Path):
        return given
    raise ModelError(f"{name}: a {type(given).__name__}; give one of transformers, or its folder")


def _as_dtype(name: str, given: object) -> torch.dtype:
    """Reads a dtype, by name as well."""
    named = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    if not isinstance(named, torch.dtype) or not named.is_floating_point or named.itemsize < 2:
        raise ModelError(f"{name} {told(given)}: choose float32, bfloat16, float16 or float64")
    return named


@door(
    name=_model_or_name,
    tokenizer=_as_tokenizer,
    dtype=_as_dtype,
    device=Only((str, torch.device), "'cpu', 'cuda' or the like", ModelError),
)
def load_model(
    name: str | Path | Model | nn.Module,
    *,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
) -> Model:
    """Load a model as a TransformerLens `TransformerBridge`, in evaluation mode.

    A model in memory shares its weights with the bridge and stays as it is otherwise; its weights
    are copied where another dtype or device is asked for, or an adapter of PEFT is merged.

    Args:
        name: ``"tiny"`` or ``"smollm2-135m"``, a local folder, a GGUF file, a Hub name, or a model
            of the transformers library in memory, also one that PEFT wraps. A bridge of your own
            is returned as it is.
        tokenizer: the tokenizer, or where it lies, if not beside the model.
        dtype: the dtype of the weights and of all arithmetic, such as ``"bfloat16"``. If not
            given: float32, and a model in memory keeps its own.
        device: ``"cpu"``, ``"cuda"``, …; if not given: ``$MECHSPEX_DEVICE``, else the CPU; a model
            in memory stays where it is.

    Raises:
        ModelError: no such model, device or dtype; or a model that cannot be used: quantised, cut
            off, without some of its weights or its tokenizer, an encoder–decoder, or pickled.
        FetchError: SmolLM2 could not be fetched.
    """
    if isinstance(name, TransformerBridge):
        if tokenizer is not None:
            raise ModelError("a bridge has its tokenizer; set model.tokenizer, and give no other")
        return name
    dtype = None if dtype is None else _as_dtype("dtype", dtype)
    device = None if device is None else _checked_device(device)
    # The caller's generator and inference mode are none of a model's: gradients need tensors that
    # were not made in that mode.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        if isinstance(name, nn.Module):
            model = _load_in_memory(name, tokenizer, dtype, device)
        else:
            device = device or _device_of_the_user()
            model = _load_named(name, tokenizer, dtype or torch.float32, device)
    return model.eval()


def _load_named(
    name: str | Path,
    tokenizer: PreTrainedTokenizerBase | str | Path | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Model:
    if name == "tiny":
        return _load_tiny(tokenizer, dtype, device)
    if name == "smollm2-135m":
        name = smollm2_folder()
    check_model_name(name, needs_tokenizer=tokenizer is None)
    path = Path(name).expanduser()
    if path.is_file():
        with _refusing(name), _no_progress_bars():
            own = gguf_tokenizer(path) if tokenizer is None else _tokenizer_at(tokenizer)
            return _bridge_around(_moved(gguf_model(path), dtype, device), own, str(name))
    source = path if path.is_dir() else hub_source(str(name))
    return _load_transformers(source, str(name), tokenizer, dtype, device)


def _load_in_memory(
    given: nn.Module,
    tokenizer: PreTrainedTokenizerBase | str | Path | None,
    dtype: torch.dtype | None,
    device: torch.device | None,
) -> Model:
    model = merged(given)
    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"{type(model).__name__} is no model of the transformers library; give one of its "
            "models, or wrap yours in a TransformerBridge"
        )
    kind = type(model).__name__
    check_configuration(kind, model.config.to_dict())
    tensors = list(model.parameters())
    if any(tensor.is_meta for tensor in tensors):
        raise ModelError(
            f"{kind} lies on the meta device, which holds no numbers; load its weights"
        )
    name = model.config.name_or_path or kind
    if tokenizer is None and model.config.name_or_path:
        tokenizer = model.config.name_or_path
    if tokenizer is None:
        raise ModelError(f"{kind} does not know its tokenizer; give load_model(…, tokenizer=…)")
    with _refusing(kind), _no_progress_bars():
        own = _tokenizer_at(tokenizer)
        if model is not given:
            shell = model
        elif all(dtype in (None, p.dtype) and device in (None, p.device) for p in tensors):
            shell = with_shared_weights(model)
        else:
            shell = copy.deepcopy(model)
        return _bridge_around(_moved(shell, dtype, device), own, name)


def _moved(
    model: PreTrainedModel, dtype: torch.dtype | None, device: torch.device | None
) -> PreTrainedModel:
    """A model on a device, its parameters in a dtype: its buffers are as precise as they were."""
    if device is not None:
        nn.Module.to(model, device)
    if dtype is not None:
        for parameter in model.parameters():
            if parameter.dtype != dtype and parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        model.config.dtype = dtype
    return model


def _bridge_around(model: PreTrainedModel, own: PreTrainedTokenizerBase, name: str) -> Model:
    """A bridge around a model of transformers, whose modules it changes in place."""
    parameter = next(model.parameters())
    # As save_pretrained writes it; classes derived from those of transformers are read as those.
    known = (c for c in type(model).__mro__ if c.__module__.startswith("transformers."))
    model.config.architectures = [next(known).__name__]
    return TransformerBridge.boot_transformers(
        name,
        hf_model=model,
        dtype=parameter.dtype,
        device=parameter.device,
        tokenizer=tokenizer_for_bridge(own),
    )


def _tokenizer_at(given: PreTrainedTokenizerBase | str | Path) -> PreTrainedTokenizerBase:
    """A tokenizer, or the one of a folder or Hub name."""
    if isinstance(given, PreTrainedTokenizerBase):
        return given
    folder = Path(given).expanduser()
    if folder.is_dir() and not has_tokenizer(folder):
        raise ModelError(f"folder {folder} has no tokenizer; give load_model(…, tokenizer=…)")
    source = str(folder) if folder.is_dir() else hub_source(str(given))
    own = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if not own.get_vocab():
        raise ModelError(f"{given} has no tokenizer; give load_model(…, tokenizer=…)")
    return own


def _device_of_the_user() -> torch.device:
    try:
        return _checked_device(os.environ.get("MECHSPEX_DEVICE") or "cpu")
    except ModelError as error:
        raise ModelError(f"MECHSPEX_DEVICE: {error}") from None


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        checked = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"device {str(device)!r} cannot be used here ({reason}); try cpu"
        ) from None
    if checked.type == "meta":
        raise ModelError("device 'meta' holds no numbers; try cpu")
    return checked


def _load_tiny(
    tokenizer: PreTrainedTokenizerBase | str | Path | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Model:
    config = json.loads((TINY / "config.json").read_text())
    own = _tokenizer_at(TINY if tokenizer is None else tokenizer)
    weights = load_file(TINY / "model.safetensors")
    return native_model("tiny", config, own, weights, dtype=dtype, device=device)


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


def _load_transformers(
    source: str | Path,
    name: str,
    tokenizer: PreTrainedTokenizerBase | str | Path | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Model:
    """The model of a folder or Hub name; `name` is what the user calls it."""
    with _refusing(name), _no_progress_bars():
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
        check_configuration(f"model {name!r}", config.to_dict())
        kind = get_hf_model_class_for_architecture(determine_architecture_from_hf_config(config))
        own = _tokenizer_at(source if tokenizer is None else tokenizer)
        model = TransformerBridge.boot_transformers(
            str(source),
            dtype=dtype,
            device=device,
            tokenizer=tokenizer_for_bridge(own),
            model_class=WholeModels(kind, name),
        )
        model.cfg.model_name = name
        return model


@contextmanager
def _refusing(name: object) -> Iterator[None]:
    """Whatever loading stumbles over is told with the reason and the ways."""
    try:
        yield
    except MechspexError:
        raise
    except Exception as error:  # the libraries raise nearly everything on files they do not like
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"model {str(name)!r} could not be loaded ({reason}); name one of "
            f"{', '.join(SHIPPED)}, a folder with config.json and *.safetensors, a GGUF file, or a "
            "Hub name (which needs the network unless it is in the Hub's cache)"
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
