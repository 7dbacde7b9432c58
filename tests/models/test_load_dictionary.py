"""Dictionaries from files: what is written comes back, and what is not understood is refused."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from latent_oracle import random_dictionary
from safetensors.torch import load_file, save_file

import mechspex as mx
from mechspex.errors import DictionaryError

POST = "blocks.3.hook_resid_post"
TRANSCODER = ("blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out")
LATENTS = {
    "relu": random_dictionary(POST, d=8, n=12, centred=True),
    "jumprelu": random_dictionary(POST, rule="jumprelu", d=8, n=12),
    "topk": random_dictionary(POST, rule="topk", d=8, n=12),
    "gated": random_dictionary("blocks.3.hook_attn_out", rule="gated", d=8, n=12),
    "transcoder": random_dictionary(*TRANSCODER, d=8, n=12),
    "top-k transcoder": random_dictionary(*TRANSCODER, rule="topk", d=8, n=12),
}


@pytest.mark.parametrize("name", LATENTS)
def test_a_saved_dictionary_is_read_as_it_was(name, tmp_path):
    dictionary = LATENTS[name]
    dictionary.save(tmp_path / "sae")
    read = mx.load_dictionary(tmp_path / "sae")
    assert read.digest == dictionary.digest
    assert (read.reads, read.writes, read.rule) == (
        dictionary.reads, dictionary.writes, dictionary.rule,
    )  # fmt: skip
    x = torch.randn(5, 3, 8)
    assert torch.equal(read.activations(x), dictionary.activations(x))
    chosen = torch.tensor([7, 2])
    few = read.activations(x, chosen)
    assert torch.allclose(few, read.activations(x)[..., chosen], atol=1e-6)
    assert torch.equal(few > 0, read.activations(x)[..., chosen] > 0)


def edit(folder, **changes):
    """Change fields of a configuration; a field that becomes None is taken out."""
    config = json.loads((folder / "cfg.json").read_text()) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "cfg.json").write_text(json.dumps(kept))


def test_older_configurations_of_saelens(tmp_path):
    """Hook points outside the metadata, the function of latents in words, b_dec subtracted."""
    LATENTS["topk"].save(tmp_path)
    edit(tmp_path, architecture="standard", activation_fn_str="topk", k=None, metadata=None,
         activation_fn_kwargs={"k": 5}, hook_name=POST, apply_b_dec_to_input=None)  # fmt: skip
    read = mx.load_dictionary(tmp_path)
    assert (read.rule, read.k, read.reads, read.centred) == ("topk", 5, POST, True)


@pytest.mark.parametrize(
    ("folder", "options", "hooks"),
    [
        ("layers.3", {}, (POST, POST)),
        ("model.layers.3.mlp", {}, ("blocks.3.mlp.hook_out",) * 2),
        ("transformer.h.3.attn", {}, ("blocks.3.attn.hook_out",) * 2),
        ("layers.3.mlp", {"transcode": True, "skip_connection": True},
         ("blocks.3.mlp.hook_in", "blocks.3.mlp.hook_out")),
    ],
)  # fmt: skip
def test_the_layout_of_sparsify(folder, options, hooks, tmp_path):
    made, path = LATENTS["topk"], tmp_path / folder
    path.mkdir()
    skip = torch.randn(8, 8)
    tensors = {"encoder.weight": made.w_enc.T.contiguous(), "encoder.bias": made.b_enc,
               "W_dec": made.w_dec, "b_dec": made.b_dec, "W_skip": skip}  # fmt: skip
    save_file(tensors, path / "sae.safetensors")
    (path / "cfg.json").write_text(json.dumps({"d_in": 8, "k": 5, **options}))
    read = mx.load_dictionary(path)
    assert (read.reads, read.writes, read.rule, read.k) == (*hooks, "topk", 5)
    assert read.centred is not bool(options)
    x = torch.randn(4, 8)
    before = (x - made.b_dec * read.centred) @ made.w_enc + made.b_enc
    largest = before.topk(5)
    written = torch.zeros(4, 12).scatter(1, largest.indices, largest.values.relu()) @ made.w_dec
    written = written + made.b_dec + (x @ skip.T if options else 0)
    assert torch.allclose(read.reconstruction(x), written, atol=1e-5)


def cut(folder):
    file = folder / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def pickled(folder):
    (folder / "sae_weights.safetensors").unlink()
    (folder / "sae.pt").write_bytes(pickle.dumps({"W_enc": 1}))


def retensored(**changes):
    def change(folder):
        tensors = load_file(folder / "sae_weights.safetensors") | changes
        tensors = {name: t for name, t in tensors.items() if t is not None}
        save_file(tensors, folder / "sae_weights.safetensors")

    return change


BAD = {
    "no folder": (lambda f: f.rename(f.with_name("away")), "no folder"),
    "no configuration": (lambda f: (f / "cfg.json").unlink(), "holds sae_weights.safetensors; a"),
    "a pickle": (pickled, "holds cfg.json, sae.pt; a dictionary is"),
    "cut off": (cut, "no whole safetensors file"),
    "no JSON": (lambda f: (f / "cfg.json").write_text("{"), "cannot be read as JSON"),
    "a list": (lambda f: (f / "cfg.json").write_text("[1]"), "holds a list"),
    "deep JSON": (lambda f: (f / "cfg.json").write_text("[" * 10**5), "cannot be read as JSON"),
    "unknown latents": (lambda f: edit(f, architecture="batchtopk"), "'batchtopk' are not known"),
    "unknown function": (lambda f: edit(f, activation_fn_str="tanh-relu"), "'tanh-relu'"),
    "a number": (lambda f: edit(f, architecture=["x"]), "are not known"),
    "a normalisation": (lambda f: edit(f, normalize_activations="layer_norm"), "layer_norm"),
    "one head": (lambda f: edit(f, hook_head_index=3), "hook_head_index = 3"),
    "no hook": (lambda f: edit(f, metadata=None), "names no hook point; give it as hook="),
    "between heads": (lambda f: edit(f, hook_name="blocks.3.attn.hook_z"), "hook_z' cannot be"),
    "no k": (lambda f: edit(f, architecture="topk", k="many"), "k = 'many'"),
    "k too large": (lambda f: edit(f, architecture="topk", k=13), "k = 13: give 1 … 12"),
    "layers apart": (lambda f: edit(f, hook_name_out="blocks.5.hook_mlp_out"), "is neither"),
    "a part lost": (retensored(b_enc=None), "has no tensor 'b_enc'"),
    "of another": (retensored(W_dec=torch.ones(9, 8)), r"w_enc .* \[8, 12\], expected \[8, 9\]"),
    "several layers": (retensored(W_enc=torch.ones(2, 8, 12)), "one hook point has 2 axes"),
    "nothing": (
        retensored(W_enc=torch.ones(8, 0), b_enc=torch.ones(0), W_dec=torch.ones(0, 8)),
        "have shapes",
    ),
    "NaN": (retensored(b_dec=torch.full((8,), float("nan"))), "holds NaN"),
    "no threshold": (lambda f: edit(f, architecture="jumprelu"), "has no tensor 'threshold'"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_dictionary_is_refused(what, tmp_path):
    folder = tmp_path / "sae"
    LATENTS["relu"].save(folder)
    spoil, said = BAD[what]
    spoil(folder)
    with pytest.raises(DictionaryError, match=said):
        mx.load_dictionary(folder)


def test_a_hook_point_is_given_where_files_name_none(tmp_path):
    LATENTS["relu"].save(tmp_path)
    edit(tmp_path, metadata=None)
    assert mx.load_dictionary(tmp_path, hook="blocks.7.hook_mlp_out").called == "L7MLP"
    with pytest.raises(
        DictionaryError, match="dictionary = 3: give a dictionary, the name of a shipped one"
    ):
        mx.latents("tiny", 3)  # pyright: ignore[reportArgumentType]


def test_the_shipped_dictionary_is_read_by_name():
    dictionary = mx.load_dictionary("smollm2-135m-l15")
    assert (dictionary.called, dictionary.rule, dictionary.k) == ("L15", "topk", 32)
    assert (dictionary.n_latents, dictionary.d_in) == (2048, 576)
    assert (dictionary.to(torch.device("cpu"), torch.float16).w_enc == dictionary.w_enc).all(), (
        "the file is in float16"
    )
    assert dictionary.folder is not None
    said = json.loads((dictionary.folder / "quality.json").read_text())["held out"]
    table = (Path(__file__).parents[1] / "benchmarks/train_dictionary.md").read_text()
    for name, each in said.items():
        assert f"| {name} | {each:.2f} |" in table
    assert said["share of variance explained"] > 0.7
    assert said["share of loss recovered"] > 0.9
    with pytest.raises(DictionaryError, match="shipped dictionary: smollm2-135m-l15"):
        mx.load_dictionary("smollm2-l15")
