"""Folders and names from which no model can be loaded: refused with the reason and the way out."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_random
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
)

import mechspex as mx
from mechspex.errors import ModelError


@pytest.fixture
def folder(gpt2_folder, tmp_path):
    """A copy of a GPT-2, whose LM head is tied to its embedding and in no file."""
    return shutil.copytree(gpt2_folder, tmp_path / "gpt2")


def change_config(folder, **changed):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def change_weights(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})


def test_a_tied_lm_head_is_not_missing(folder):
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert mx.load_model(folder)


MISSING = {
    "the LM head": "embed_out.weight",  # as it is called in files
    "a bias": "gpt_neox.layers.1.attention.dense.bias",
    "the embedding": "gpt_neox.embed_in.weight",
    "a norm": "gpt_neox.final_layer_norm.weight",
}


@pytest.mark.parametrize("what", MISSING)
def test_missing_weights_are_named_not_made_up(tmp_path, what):
    config = GPTNeoXConfig(
        vocab_size=206, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    folder = save_random(GPTNeoXForCausalLM, config, tmp_path)
    mx.load_model(folder)
    change_weights(folder, lambda tensors: tensors.pop(MISSING[what]))
    name = MISSING[what].replace("embed_out", "lm_head").replace(".", r"\.")
    with pytest.raises(ModelError, match=f"lacks the weights {name}, which would be made up"):
        mx.load_model(folder)


def test_a_configuration_with_more_layers_than_weights_is_refused(folder):
    change_config(folder, n_layer=3)
    with pytest.raises(ModelError, match=r"lacks the weights transformer\.h\.2\..* and 7 more"):
        mx.load_model(folder)


def test_weights_that_nothing_reads_are_told(folder):
    change_config(folder, n_layer=1)
    with pytest.warns(UserWarning, match=r"has no use for the weights transformer\.h\.1\."):
        mx.load_model(folder)


SHAPES = {
    "wider": ({"n_embd": 48}, r"shape \[\d+.*config.json asks for"),
    "another vocabulary": ({"vocab_size": 300}, r"wte.weight has shape \[206, 24\].*\[300, 24\]"),
    "a longer context": ({"n_positions": 64}, r"wpe.weight has shape \[32, 24\].*\[64, 24\]"),
}


@pytest.mark.parametrize("what", SHAPES)
def test_weights_of_other_shapes_are_named(folder, what):
    changed, said = SHAPES[what]
    change_config(folder, **changed)
    with pytest.raises(ModelError, match=said):
        mx.load_model(folder)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", None])
def test_quantised_folders_are_refused_with_the_way(folder, method):
    change_config(folder, quantization_config={"quant_method": method, "bits": 4})
    said = f"quantised by {method or 'an unknown method'}; load it .* what its dequantize"
    with pytest.raises(ModelError, match=said):
        mx.load_model(folder)


def cut(data):
    return data[: len(data) // 3]


def lengthened(data):
    return data + b"\0" * 7


def pointer(data):
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


def no_header(data):
    return len(b"{]").to_bytes(8, "little") + b"{]" + data


def huge_header(data):
    return (2**62).to_bytes(8, "little") + data[8:]


@pytest.mark.parametrize(
    "damage",
    [cut, lengthened, pointer, no_header, huge_header, lambda data: b"", lambda data: data[:5]],
)
def test_damaged_weights_are_refused(folder, damage):
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=r"model.safetensors .*cut off or damaged on its way"):
        mx.load_model(folder)


def test_a_missing_part_of_the_weights_is_named(folder):
    whole = load_file(folder / "model.safetensors")
    names = sorted(whole)
    halves = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, half in halves.items():
        save_file({name: whole[name] for name in half}, folder / file, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    weight_map = {name: file for file, half in halves.items() for name in half}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert mx.load_model(folder)
    (folder / "b.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks 'b.safetensors', one of 1 of its 2 files"):
        mx.load_model(folder)
    for weights, complaint in (
        ({"a": "x" * 5000}, "lacks 'xxx"),
        ({"a": ["b"]}, "does not say which weights lie where"),
        ([], "does not say which weights lie where"),
    ):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
        with pytest.raises(ModelError, match=complaint):
            mx.load_model(folder)


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (
            MT5ForConditionalGeneration,
            MT5Config(
                vocab_size=206, d_model=24, d_kv=8, d_ff=16, num_layers=1, num_heads=3,
                decoder_start_token_id=0, tie_word_embeddings=False,
            ),
        ),
        (
            BartForConditionalGeneration,
            BartConfig(
                vocab_size=206, d_model=24, encoder_layers=1, decoder_layers=1,
                encoder_attention_heads=3, decoder_attention_heads=3, encoder_ffn_dim=16,
                decoder_ffn_dim=16, max_position_embeddings=16, bos_token_id=1, eos_token_id=1,
                pad_token_id=0,
            ),
        ),
    ],
)  # fmt: skip
def test_encoder_decoders_are_refused_from_a_folder_and_in_memory(tmp_path, model, config):
    save_random(model, config, tmp_path)
    for given in (tmp_path, model(config)):
        with pytest.raises(ModelError, match=f"an encoder–decoder .{model.__name__}.*not support"):
            mx.load_model(given)


@pytest.mark.parametrize("content", ["{", "[]", "3", ""])
def test_a_configuration_that_is_none_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config.json (cannot be read as JSON|holds a)"):
        mx.load_model(folder)


def test_a_configuration_of_no_known_model_is_refused(folder):
    change_config(folder, model_type="gpt99", architectures=["GPT99"])
    with pytest.raises(ModelError, match=r"could not be loaded \(.*gpt99"):
        mx.load_model(folder)


def test_code_of_a_folder_is_never_run(folder):
    canary = folder / "canary"
    (folder / "own.py").write_text(f"open({str(canary)!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    change_config(folder, auto_map=own, model_type="own")
    with pytest.raises(ModelError, match="could not be loaded"):
        mx.load_model(folder)
    assert not canary.exists()


def test_an_adapter_alone_is_refused_with_the_way(folder):
    (folder / "adapter_config.json").write_text("{}")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"PEFT adapter alone; merge it .*merge_and_unload\(\)"):
        mx.load_model(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "note.bin"])
def test_a_file_of_a_folder_reaches_no_unpickler(folder, file):
    canary = folder / "canary"
    pickled = b"cio\nopen\n(V" + str(canary).encode() + b"\nVw\ntR."
    (folder / file).write_bytes(pickled)
    with pytest.raises(ModelError, match="is a file; give its folder"):
        mx.load_model(folder / file)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("smollm2", "smollm2-135m"), ("smolm2", "smollm2-135m"), ("SmolLM2-135M", "smollm2-135m"),
     ("Tiny", "tiny"), ("tinny", "tiny")],
)  # fmt: skip
def test_a_slip_of_a_shipped_name_is_told_without_a_network(name, meant):
    with pytest.raises(ModelError, match=f"no model '{name}'; did you mean '{meant}'"):
        mx.load_model(name)


def test_without_a_network_a_name_is_asked_for_once(tmp_path):
    with socket.socket() as closed:  # a port at which nobody answers
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    code = (
        "import time, mechspex as mx\n"
        "from mechspex.models import load_model\n"
        "start = time.monotonic()\n"
        "try:\n    mx.load_model('some-one/some-model')\n"
        "except mx.errors.ModelError as error:\n"
        "    print(error, time.monotonic() - start)\n"
    )
    environment = dict(os.environ, HF_ENDPOINT=nowhere, HF_HOME=str(tmp_path))
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "the Hub cannot be reached" in done.stdout
    assert float(done.stdout.split()[-1]) < 10, time.monotonic() - start
    assert "Retrying" not in done.stderr


def test_the_meta_device_is_refused():
    with pytest.raises(ModelError, match="device 'meta' holds no numbers"):
        mx.load_model("tiny", device="meta")


def test_a_home_folder_is_found(llama_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(llama_folder.parent))
    assert mx.load_model(f"~/{llama_folder.name}").cfg.n_layers == 2


def test_a_whole_folder_is_loaded_as_transformers_does(llama_folder):
    """The negative control of all of these."""
    own = LlamaForCausalLM.from_pretrained(llama_folder)
    tokens = torch.tensor([[1, 5, 9, 12]])
    with torch.no_grad():
        expected = own(tokens).logits
        logits = mx.load_model(llama_folder).original_model(tokens).logits
    assert isinstance(own.config, LlamaConfig)
    assert torch.allclose(logits, expected, atol=1e-4)
