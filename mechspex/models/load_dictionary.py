"""Dictionaries from files: the layouts of SAELens, sparsify and circuit-tracer, without them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mechspex.core.checks import Only, told
from mechspex.core.doors import door
from mechspex.core.errors import DictionaryError, ModelError
from mechspex.models.dictionary import Dictionary, Place
from mechspex.models.folder import read_fields
from mechspex.models.shipped import dictionary_folder

_CONFIGURATION = "cfg.json"
# {file of weights: the library whose layout it is}
_WEIGHTS = {"sae_weights.safetensors": "SAELens", "sae.safetensors": "sparsify"}
# One layer of a cross-layer transcoder in each.
_ENCODER, _DECODER = "W_enc_{}.safetensors", "W_dec_{}.safetensors"
# What a hook point is called in the few lines of YAML beside them.
_POINT = r"^feature_{}_hook:\s*[\"']?([\w.]+)[\"']?\s*$"
# Layers that are in use: each later one knows all before it, which would be read as often else.
_LAYERS: WeakValueDictionary[tuple[object, ...], Dictionary] = WeakValueDictionary()
_HOOKS = "give it as hook='blocks.15.hook_resid_post'"

# {architecture of SAELens: rule of its latents}
_ARCHITECTURES = {
    "standard": "relu",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu": "jumprelu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
    "topk": "topk",
    "gated": "gated",
}


def as_dictionary(name: str, given: object) -> Any:
    """Reads a dictionary, or the folder it lies in.

    Raises:
        DictionaryError: something else, or what `load_dictionary` refuses.
    """
    if isinstance(given, Dictionary):
        return given
    wanted = "a dictionary, the name of a shipped one, or the folder of its files"
    return load_dictionary(Only((str, Path), wanted, DictionaryError)(name, given))


@door(
    folder=Only((str, Path), "the folder of a dictionary's files, or a name", DictionaryError),
    hook=Only((str,), "the name of a hook point", DictionaryError),
)
def load_dictionary(folder: str | Path, hook: str | None = None) -> Dictionary:
    """A sparse autoencoder or a transcoder from its folder, or a shipped one by name.

    Read are the layouts of SAELens (``cfg.json`` and ``sae_weights.safetensors``; ``standard``,
    ``jumprelu``, ``topk``, ``gated``, and transcoders), of sparsify (``cfg.json`` and
    ``sae.safetensors``; ``topk``), and of circuit-tracer's cross-layer transcoders
    (``W_enc_0.safetensors``, ``W_dec_0.safetensors``, …; ``relu``, ``jumprelu``). Of these it is
    the layer that `hook` names, which knows what latents of earlier layers write there. Files that
    are anything else are refused, pickles among them.

    ``smollm2-135m-l15`` ships in the package: 2,048 top-32 latents of what leaves block 15 of
    ``smollm2-135m``, of which ``quality.json`` in its folder says what they keep.

    Args:
        folder: where the files lie, or the name of a shipped dictionary.
        hook: the hook point of what it reads, where the files do not say so:
            ``blocks.15.hook_resid_post``; of a cross-layer transcoder that of its layer.

    Raises:
        DictionaryError: no such folder, files that are cut off or lack a part, or an architecture
            or a normalisation that is not known.
    """
    path = dictionary_folder(folder)
    if (path / _ENCODER.format(0)).is_file():
        return _cross_layer(path, hook)
    weights = [name for name in _WEIGHTS if (path / name).is_file()]
    if not (path / _CONFIGURATION).is_file() or not weights:
        there = ", ".join(sorted(one.name for one in path.iterdir())[:8]) or "nothing"
        raise DictionaryError(
            f"folder {path} holds {there}; a dictionary is cfg.json beside {' or '.join(_WEIGHTS)}"
        )
    try:
        config = read_fields(path / _CONFIGURATION)
    except ModelError as error:
        raise DictionaryError(str(error)) from None
    tensors = _read(path / weights[0])
    made = _saelens if _WEIGHTS[weights[0]] == "SAELens" else _sparsify
    return Dictionary(**made(path, config, tensors, hook), folder=path.absolute())


def _read(file: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise DictionaryError(
            f"{file} is no whole safetensors file ({error}); download it again"
        ) from None
    return {name: tensor.float() for name, tensor in tensors.items()}


def _saelens(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], hook: str | None
) -> dict[str, Any]:
    metadata = config.get("metadata")
    said = {**(metadata if isinstance(metadata, dict) else {}), **config}
    architecture = said.get("architecture") or "standard"
    function = said.get("activation_fn_str") or said.get("activation_fn")
    if architecture == "standard" and function == "topk":
        architecture = "topk"
    known = isinstance(architecture, str) and architecture in _ARCHITECTURES
    if not known or (function or "relu") not in ("relu", "topk"):
        raise DictionaryError(
            f"{path}: latents of architecture {architecture!r}"
            + (f" and activation {function!r}" if function else "")
            + f" are not known; those of {', '.join(_ARCHITECTURES)} are (a batch-top-k dictionary "
            "is saved as jumprelu for use)"
        )
    _refuse(path, said, "normalize_activations", ("none", None), "fold its factor into the weights")
    _refuse(path, said, "reshape_activations", ("none", None), "take one of hook_attn_out")
    _refuse(path, said, "hook_head_index", (None,), "take one of a whole layer")
    _refuse(path, said, "rescale_acts_by_decoder_norm", (False, None), "fold the norms first")
    _refuse(path, said, "finetuning_scaling_factor", (False, None), "fold it into W_dec")
    rule = _ARCHITECTURES[architecture]
    options = said.get("activation_fn_kwargs")
    k = said.get("k", options.get("k") if isinstance(options, dict) else None)
    reads = hook or said.get("hook_name") or said.get("hook_point")
    writes = said.get("hook_name_out") or reads
    if not isinstance(reads, str) or not isinstance(writes, str):
        raise DictionaryError(f"{path / _CONFIGURATION} names no hook point; {_HOOKS}")
    transcodes = reads != writes
    wanted = {"w_enc": "W_enc", "w_dec": "W_dec", "b_dec": "b_dec"}
    own = {"jumprelu": {"threshold": "threshold"}, "gated": {"r_mag": "r_mag", "b_mag": "b_mag"}}
    wanted |= {"b_enc": "b_gate" if rule == "gated" else "b_enc"} | own.get(rule, {})
    if "skip" in architecture:
        wanted["skip"] = "W_skip"
    centred = bool(said.get("apply_b_dec_to_input", not transcodes)) and not transcodes
    return _taken(path, tensors, wanted) | {
        "reads": reads, "writes": writes, "rule": rule, "centred": centred,
        "k": _whole(path, k) if rule == "topk" else None,
    }  # fmt: skip


def _sparsify(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], hook: str | None
) -> dict[str, Any]:
    _refuse(path, config, "activation", ("topk", None), "take one of top-k latents")
    for option in ("embed_skip", "gram_lookup"):
        _refuse(path, config, option, (False, None), "take one without")
    transcodes = bool(config.get("transcode"))
    reads = hook or _hook_of_module(path, transcodes)
    # What a module of transformers returns, before any norm after it.
    writes = re.sub(r"(blocks\.\d+\.).*", r"\1mlp.hook_out", reads) if transcodes else reads
    wanted = {"w_enc": "encoder.weight", "b_enc": "encoder.bias", "w_dec": "W_dec",
              "b_dec": "b_dec"}  # fmt: skip
    if config.get("skip_connection"):
        wanted["skip"] = "W_skip"
    taken = _taken(path, tensors, wanted)
    taken["w_enc"] = taken["w_enc"].T.contiguous()
    return taken | {
        "reads": reads, "writes": writes, "rule": "topk", "centred": not transcodes,
        "k": _whole(path, config.get("k", 32)),
    }  # fmt: skip


def _cross_layer(path: Path, hook: str | None) -> Dictionary:
    """One layer of a cross-layer transcoder, and the layers before it."""
    n_layers = 1
    while (path / _ENCODER.format(n_layers)).is_file():
        n_layers += 1
    point = _said(path, "input") or (None if hook is None else Place.named(hook).point)
    written = _said(path, "output") or "hook_mlp_out"
    if hook is None or point is None:
        raise DictionaryError(
            f"{path} holds a cross-layer transcoder of {n_layers} layers; name the one that is "
            f"wanted by what it reads, hook='blocks.0.{point or 'hook_resid_mid'}'"
        )
    wanted = Place.named(hook)
    if wanted.point != point or wanted.layer >= n_layers:
        raise DictionaryError(
            f"{path} holds a cross-layer transcoder of what {point} is in layers 0 … "
            f"{n_layers - 1}, not of {hook}; give hook='blocks.{min(wanted.layer, n_layers - 1)}."
            f"{point}'"
        )
    layers = [_layer(path, n, n_layers, point, written) for n in range(wanted.layer + 1)]
    return replace(layers[-1], earlier=tuple(layers[:-1])) if wanted.layer else layers[0]


def _layer(path: Path, layer: int, n_layers: int, point: str, written: str) -> Dictionary:
    """One layer by itself; read once while another that knows it as an earlier one is there."""
    files = [path / name.format(layer) for name in (_ENCODER, _DECODER)]
    # Files that were written since are other ones.
    made = tuple(one.stat().st_mtime_ns if one.is_file() else 0 for one in files)
    key = (path.resolve(), layer, point, written, made)
    found = _LAYERS.get(key)
    if found is None:
        given = _one_layer(path, layer, n_layers)
        reads, writes = f"blocks.{layer}.{point}", f"blocks.{layer}.{written}"
        found = _LAYERS[key] = Dictionary(reads, writes, **given, folder=path.absolute())
    return found


def _said(path: Path, way: str) -> str | None:
    """The hook point that all layers read, or write to, where ``config.yaml`` says so."""
    file = path / "config.yaml"
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    found = re.search(_POINT.format(way), text, re.MULTILINE)
    return None if found is None else found[1]


def _one_layer(path: Path, layer: int, n_layers: int) -> dict[str, Any]:
    file = path / _DECODER.format(layer)
    if not file.is_file():
        raise DictionaryError(f"{path} has no {file.name}, what layer {layer} writes; fetch it too")
    tensors = _read(path / _ENCODER.format(layer)) | _read(file)
    past = [one.name for one in path.glob("W_skip*")] + [n for n in tensors if "skip" in n]
    if past:
        raise DictionaryError(
            f"{path} has {past[0]}: what is written past all latents of a cross-layer transcoder "
            "is not supported; take one without"
        )
    wanted = {"w_enc": f"W_enc_{layer}", "b_enc": f"b_enc_{layer}", "b_dec": f"b_dec_{layer}"}
    if f"threshold_{layer}" in tensors:
        wanted["threshold"] = f"threshold_{layer}"
    taken = _taken(path, tensors, wanted)
    written = tensors.get(f"W_dec_{layer}")
    if written is None or written.ndim != 3 or written.shape[1] != n_layers - layer:
        shape = "none" if written is None else f"one of shape {list(written.shape)}"
        raise DictionaryError(
            f"{file} should hold W_dec_{layer} of shape [latent, {n_layers - layer}, d_out], and "
            f"holds {shape}; its files may be of two transcoders"
        )
    if "threshold" in taken and bool((taken["threshold"] < 0).any()):
        raise DictionaryError(
            f"threshold_{layer} in {path} has numbers below 0, up to which latents would be "
            "negative; take a transcoder without"
        )
    directions = [one.contiguous() for one in written.unbind(1)]
    rule = "jumprelu" if "threshold" in taken else "relu"
    taken["w_enc"] = taken["w_enc"].T.contiguous()
    return taken | {"w_dec": directions[0], "later": tuple(directions[1:]), "rule": rule}


def _hook_of_module(path: Path, transcodes: bool) -> str:
    """The hook point of the module after which sparsify names a folder: ``layers.15.mlp``."""
    found = re.fullmatch(r"(?:[a-z_]+\.)*?(?:layers|h|blocks)\.(\d+)(?:\.(\w+))?", path.name)
    part = None if found is None else found[2]
    points: dict[str | None, str] = {"mlp": "mlp.hook_in"} if transcodes else {
        None: "hook_resid_post", "mlp": "mlp.hook_out",
        "self_attn": "attn.hook_out", "attn": "attn.hook_out", "attention": "attn.hook_out",
    }  # fmt: skip
    if found is None or part not in points:
        raise DictionaryError(
            f"the name of folder {path} does not say which module its dictionary reads, as "
            f"layers.15 or layers.15.mlp do; {_HOOKS}"
        )
    return f"blocks.{found[1]}.{points[part]}"


def _taken(
    path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, str]
) -> dict[str, Tensor]:
    for name in wanted.values():
        if name not in tensors:
            raise DictionaryError(
                f"{path} has no tensor {name!r}; it has {', '.join(sorted(tensors)) or 'none'}"
            )
    axes = {"w_enc": 2, "w_dec": 2, "skip": 2}
    taken = {own: tensors[name] for own, name in wanted.items()}
    for own, tensor in taken.items():
        if tensor.ndim != axes.get(own, 1):
            raise DictionaryError(
                f"{wanted[own]} in {path} has shape {list(tensor.shape)}; a dictionary of one "
                f"hook point has {axes.get(own, 1)} axes there"
            )
    return taken


def _refuse(
    path: Path, said: Mapping[str, Any], option: str, known: tuple[Any, ...], step: str
) -> None:
    if said.get(option) not in known:
        raise DictionaryError(
            f"{path}: {option} = {told(said[option])} is not supported; {step}, or choose another "
            "dictionary"
        )


def _whole(path: Path, k: object) -> int:
    if not isinstance(k, int) or isinstance(k, bool):
        raise DictionaryError(f"{path / _CONFIGURATION}: k = {told(k)}; top-k latents need a k")
    return k
