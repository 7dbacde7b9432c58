"""Compile the shipped RASP programs to transformer weights with tracr (Lindner et al. 2023).

    python3 -m venv build/tracr && build/tracr/bin/pip install tracr-pypi jax safetensors
    build/tracr/bin/python mechspex/truth/compile.py [folder]

tracr and jax are needed here only; nothing of mechspex is. Of each program two small files are
written: ``<name>.safetensors``, the weights that are not zero, and ``<name>.json``, the shapes of
all weights, the vocabulary and the example sequences with the answers of the RASP interpreter.

Input and output words share one vocabulary, as in a language model: a categorical program writes
its answer as a one-hot vector over words, a numerical one as the logit of the word ``=``. Words
that are only ever read have the logit 0.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tracr.compiler import compiling, lib  # pyright: ignore[reportMissingImports]
from tracr.rasp import rasp  # pyright: ignore[reportMissingImports]

BOS, PAD, NUMBER = "<bos>", "<pad>", "="
NUMERICAL = ("xproportion", "pair_balance")
LENGTH = 4
N_EXAMPLES = 8


def programs() -> dict[str, tuple[Any, list[Any]]]:
    """{name: (program, the words it reads)}."""
    tokens = rasp.tokens
    return {
        "reverse": (lib.make_reverse(tokens), ["a", "b", "c"]),
        "hist": (lib.make_hist(), ["a", "b", "c"]),
        "sort_unique": (lib.make_sort_unique(tokens, tokens), [1, 2, 3, 4, 5, 6]),
        "xproportion": (lib.make_frac_prevs((tokens == "x").named("is_x")), ["x", "y"]),
        "pair_balance": (lib.make_pair_balance(tokens, "(", ")"), ["(", ")", "a"]),
        "dyck1": (lib.make_shuffle_dyck(["()"]), ["(", ")"]),
    }


def examples(name: str, program: Any, words: list[Any]) -> list[tuple[str, str | float]]:
    """Some of all sequences, each with the program's answer at its last place.

    The answer is a word, or a number if the program is numerical.

    Args:
        name: the program's name.
        program: the program.
        words: the words it reads.
    """
    sequences = [list(sequence) for sequence in product(words, repeat=LENGTH)]
    if name == "sort_unique":  # its keys must differ
        sequences = [sequence for sequence in sequences if len(set(sequence)) == LENGTH]
    # Only 2 of the 16 sequences of dyck1 balance; it has all of them.
    n_examples = len(sequences) if name == "dyck1" else N_EXAMPLES
    places = np.random.default_rng(0).permutation(len(sequences))[:n_examples]
    answered: list[tuple[str, str | float]] = []
    for sequence in (sequences[place] for place in sorted(places)):
        answer = program(sequence)[-1]
        numerical = name in NUMERICAL
        text = " ".join(str(word) for word in sequence)
        answered.append((text, float(answer) if numerical else str(answer)))
    return answered


def weights_of(model: Any, label: str, vocabulary: list[str]) -> dict[str, np.ndarray]:
    """The state dict of the same transformer in TransformerLens, with one shared vocabulary.

    Args:
        model: the compiled model.
        label: the program's label, by which tracr names the directions its output is written along.
        vocabulary: all words that are read or written.
    """
    d_model = len(model.residual_labels)
    embed = np.zeros((len(vocabulary), d_model), dtype=np.float32)
    for word, row in model.input_encoder.encoding_map.items():
        embed[vocabulary.index(str(word))] = model.params["token_embed"]["embeddings"][row]
    unembed = np.zeros_like(embed)
    for row, word in enumerate(vocabulary):
        written = label if word == NUMBER else f"{label}:{word}"
        if written in model.residual_labels:
            unembed[row, model.residual_labels.index(written)] = 1
    weights = {
        "embed.weight": embed,
        "pos_embed.weight": model.params["pos_embed"]["embeddings"],
        "unembed.weight": unembed,
        "unembed.bias": np.zeros(len(vocabulary)),
    }
    names = {
        "attn/query": "attn.q",
        "attn/key": "attn.k",
        "attn/value": "attn.v",
        "attn/linear": "attn.o",
        "mlp/linear_1": "mlp.in",
        "mlp/linear_2": "mlp.out",
    }
    for layer in range(model.model_config.num_layers):
        for theirs, ours in names.items():
            linear = model.params[f"transformer/layer_{layer}/{theirs}"]
            weights[f"blocks.{layer}.{ours}.weight"] = np.asarray(linear["w"]).T
            weights[f"blocks.{layer}.{ours}.bias"] = linear["b"]
    return {name: np.asarray(weight, dtype=np.float32) for name, weight in weights.items()}


def write(name: str, program: Any, words: list[Any], folder: Path) -> None:
    """Compile one program and write its two files.

    Args:
        name: the program's name.
        program: the program.
        words: the words it reads.
        folder: where the files are written.
    """
    model = compiling.compile_rasp_to_model(
        program, set(words), LENGTH, compiler_bos=BOS, compiler_pad=PAD
    )
    written = [NUMBER] if name in NUMERICAL else list(model.output_encoder.encoding_map)
    vocabulary = list(dict.fromkeys([PAD, BOS, *map(str, words), *map(str, written)]))
    weights = weights_of(model, program.label, vocabulary)
    flat = np.concatenate([weight.ravel() for weight in weights.values()])
    index = np.flatnonzero(flat).astype(np.int32)
    cfg = model.model_config
    config = {
        "n_layers": cfg.num_layers,
        "n_heads": cfg.num_heads,
        "d_model": len(model.residual_labels),
        "d_head": cfg.key_size,
        "d_mlp": cfg.mlp_hidden_size,
        "n_ctx": weights["pos_embed.weight"].shape[0],
        "d_vocab": len(vocabulary),
        "act_fn": "relu",
        "attention_dir": "causal" if cfg.causal else "bidirectional",
        "normalization_type": None,
        "positional_embedding_type": "standard",
    }
    described = {
        "config": config,
        "vocabulary": vocabulary,
        "shapes": {name: list(weight.shape) for name, weight in weights.items()},
        "examples": dict(examples(name, program, words)),
    }
    save_file({"index": index, "value": flat[index]}, folder / f"{name}.safetensors")
    text = json.dumps(described, indent=None, separators=(",", ":"))
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{name}: {len(flat):,} weights, {len(index)} of them not zero")


def main() -> None:
    """Compile all programs into a folder."""
    parser = argparse.ArgumentParser(description="Compile the shipped RASP programs.")
    default = Path(__file__).parent / "programs"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    folder: Path = parser.parse_args().folder
    for name, (program, words) in programs().items():
        write(name, program, words, folder)


if __name__ == "__main__":
    main()
