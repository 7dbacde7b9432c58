"""What a folder must hold to be a model: all that shows without loading it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mechspex.core.checks import quoted
from mechspex.core.errors import ModelError

# Any of these makes a tokenizer; without one transformers makes up an empty one.
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "vocab.model", "tiktoken.model", "tekken.json",
)  # fmt: skip
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def check_folder(folder: Path, *, needs_tokenizer: bool = True) -> None:
    """Refuse a folder from which no model can be loaded.

    Raises:
        ModelError: no configuration, one that `check_configuration` refuses, no weights in
            safetensors, weights that are cut off, or no tokenizer.
    """
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"folder {folder} holds a PEFT adapter alone; merge it into its model with "
                "merge_and_unload() and give that model itself, or a folder it was saved to"
            )
        raise ModelError(f"folder {folder} has no config.json; give a folder of save_pretrained()")
    check_configuration(f"folder {folder}", read_fields(folder / "config.json"))
    for file in _weight_files(folder):
        _check_whole(file)
    if needs_tokenizer and not has_tokenizer(folder):
        raise ModelError(
            f"folder {folder} has no tokenizer; save it there with "
            "tokenizer.save_pretrained(folder), or give it as load_model(…, tokenizer=…)"
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether there is a tokenizer among the files of a folder."""
    return any((folder / name).is_file() for name in _TOKENIZERS)


def check_configuration(model: str, config: Mapping[str, Any]) -> None:
    """Refuse the configuration of a model that cannot be measured.

    Args:
        model: what it is called in a complaint.
        config: the fields of ``config.json``.

    Raises:
        ModelError: an encoder–decoder, or quantised weights.
    """
    if config.get("is_encoder_decoder"):
        named = config.get("architectures")
        kind = named[0] if isinstance(named, list) and named else config.get("model_type")
        raise ModelError(
            f"{model} is an encoder–decoder ({kind}), which is not supported; give a model that "
            "reads and writes one text: a causal or a masked language model"
        )
    quantised = config.get("quantization_config")
    if quantised:
        told = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        method = told or "an unknown method"
        raise ModelError(
            f"{model} holds weights quantised by {method}; load it with transformers where the "
            "packages for that are, and give load_model what its dequantize() returns, or the "
            "folder of the model before it was quantised"
        )


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if (folder / _INDEX).is_file():
        told = read_fields(folder / _INDEX).get("weight_map")
        listed = list(told.values()) if isinstance(told, dict) else []
        if not listed or not all(isinstance(part, str) for part in listed):
            raise ModelError(
                f"{folder / _INDEX} does not say which weights lie where; save the model anew"
            )
        parts = set(listed)
        # A name too long for the drive is none that is there.
        missing = sorted(part for part in parts if not os.path.isfile(folder / part))
        if missing:
            raise ModelError(
                f"folder {folder} lacks {quoted(missing[0])}, one of {len(missing)} of its "
                f"{len(parts)} files of weights that are missing; copy them there"
            )
        return [folder / part for part in sorted(parts)]
    found = sorted(path.name for path in folder.glob("*.bin"))
    has = f"only {', '.join(found)}" if found else "no weights"
    raise ModelError(
        f"folder {folder} has {has}; pickled weights are never read: save it as safetensors "
        "with model.save_pretrained(folder)"
    )


def _check_whole(file: Path) -> None:
    """A safetensors file: the length of its header, the header in JSON, the tensors' bytes."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length)) if length < size else None
        tensors = {} if header is None else {k: v for k, v in header.items() if k[:2] != "__"}
        expected = 8 + length + max((t["data_offsets"][1] for t in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        header, expected = None, 0
    if header is None or size != expected:
        said = "is no whole safetensors file" if header is None else f"should have {expected:,}"
        raise ModelError(
            f"{file} ({size:,} bytes) {said}: it was cut off or damaged on its way; copy or "
            "download it again"
        )


def read_fields(file: Path) -> dict[str, Any]:
    """The fields of a JSON file of a model's folder.

    Raises:
        ModelError: no such file, or one that is none.
    """
    try:
        read = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read as JSON ({error}); save the model anew") from None
    if not isinstance(read, dict):
        raise ModelError(f"{file} holds a {type(read).__name__}, no fields; save the model anew")
    return read
