"""Models of transformers as they are read or given: every weight theirs, none of them changed."""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from mechspex.core.errors import ModelError

# Tensors that a complaint names; a model has hundreds.
_NAMED = 5


class WholeModels:
    """A class of transformers that refuses to make up weights which are not there.

    Args:
        auto_class: reads the model.
        name: the model in a complaint.
    """

    def __init__(self, auto_class: Any, name: str) -> None:
        self._auto_class = auto_class
        self._name = name

    def from_pretrained(self, source: str, **options: Any) -> PreTrainedModel:
        """The model, all of its weights from its files, which are never pickles.

        Raises:
            ModelError: weights that are missing, or of another shape than the configuration says.
        """
        model, report = self._auto_class.from_pretrained(
            source,
            **options,
            use_safetensors=True,
            # They are refused below, by name.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        check_report(self._name, report)
        return model


def check_report(name: str, report: dict[str, Any]) -> None:
    """Refuse a model whose files did not hold every weight; warn of weights that it has no use for.

    Raises:
        ModelError: weights that are missing, or of another shape than the configuration says.
    """
    if other := sorted(report["mismatched_keys"]):
        tensor, shape, wanted = other[0]
        raise ModelError(
            f"model {name!r}: {tensor} has shape {list(shape)}, its config.json asks for "
            f"{list(wanted)} (so for {len(other)} tensors); give the configuration that belongs "
            "to these weights"
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"model {name!r} lacks the weights {_some(missing)}, which would be made up at random; "
            "save the whole model with model.save_pretrained(folder), its LM head included"
        )
    if unused := sorted(report["unexpected_keys"]):
        warnings.warn(
            f"model {name!r} has no use for the weights {_some(unused)} of its files; does its "
            "config.json belong to them?",
            stacklevel=2,
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def gguf_tokenizer(file: Path) -> Any:
    """The tokenizer of a GGUF file."""
    return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


def gguf_model(file: Path) -> PreTrainedModel:
    """The model of a GGUF file, dequantised to float32.

    Raises:
        ModelError: weights that are missing.
    """
    read: Any = AutoModelForCausalLM
    model, report = read.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32, output_loading_info=True
    )
    check_report(str(file), report)
    # Its weights no longer are what it is still marked as, and save_pretrained refuses such.
    model.hf_quantizer.remove_quantization_config(model)
    return model


def merged(model: nn.Module) -> nn.Module:
    """A model that PEFT wraps, with its adapter merged into a copy; any other as it is.

    Raises:
        ModelError: an adapter that cannot be merged.
    """
    peft: Any = sys.modules.get("peft")
    # Who holds such a model has loaded the package.
    if peft is None or not isinstance(model, peft.PeftModel):
        return model
    try:
        return copy.deepcopy(model).merge_and_unload()  # pyright: ignore[reportCallIssue]
    except Exception as error:
        raise ModelError(
            f"the adapter of {type(model).__name__} cannot be merged ({error}); adapters that add "
            "to weights (LoRA) can, prompts that were learned cannot"
        ) from error


def with_shared_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model's modules around the same tensors, for a bridge to change in place."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)
