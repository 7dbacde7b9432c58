"""Models in memory already: fine-tuned, edited, merged, wrapped by PEFT; and GGUF files."""

import copy
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from small_models import ANSWERS, DISTRACTORS, PROMPTS, save_random
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import mechspex as mx
from mechspex.errors import ModelError
from mechspex.models.shipped import TINY

TASK = mx.Task(PROMPTS, ANSWERS, DISTRACTORS)
_SIZES: dict[str, Any] = {
    "vocab_size": 206, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 1,
}  # fmt: skip
_GROUPED = _SIZES | {"num_key_value_heads": 2}
_GPT: dict[str, Any] = {"vocab_size": 206, "bos_token_id": 1, "eos_token_id": 1}
ARCHITECTURES = {
    "gpt2": _GPT | {"n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neox": _SIZES,
    "llama": _GROUPED,
    "gemma2": _GROUPED | {"head_dim": 16, "attn_logit_softcapping": 2.0},
    "qwen3": _GROUPED | {"tie_word_embeddings": True},
    "mixtral": _GROUPED | {"num_local_experts": 3, "num_experts_per_tok": 2},
    "opt": _SIZES | {"ffn_dim": 128, "word_embed_proj_dim": 32},
    "bloom": _GPT | {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": _GPT | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "phi": _SIZES,
}


@pytest.fixture(params=ARCHITECTURES)
def folder(request, tmp_path):
    return saved(request.param, tmp_path)


def saved(name, folder):
    config = AutoConfig.for_model(name, **ARCHITECTURES[name])
    return save_random(AutoModelForCausalLM.from_config, config, folder)


def values_of(model):
    units = mx.heads(model)
    masks = np.concatenate(
        [np.ones((1, len(units)), bool), mx.sample_masks(len(units), 4, keep=0.5, seed=1)]
    )
    return mx.ComponentValues(model, TASK, units, "zero")(masks)


def close(one, other):
    return np.abs(one - other).max() < 2e-5 * np.abs(other).max()


def parts(model):
    return {name: type(module) for name, module in model.named_modules()}


def test_it_is_measured_as_from_its_folder_and_stays_as_it_is(folder):
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    before, modules = copy.deepcopy(model.state_dict()), parts(model)
    attention, config = model.config._attn_implementation, model.config.to_dict()
    bridge = mx.load_model(model)
    assert close(values_of(bridge), values_of(mx.load_model(folder)))
    assert parts(model) == modules
    assert model.training
    assert model.config._attn_implementation == attention
    assert model.config.to_dict() == config
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_its_weights_are_shared_so_what_it_learns_later_is_measured(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(saved("llama", tmp_path / "before"))
    bridge = mx.load_model(model)
    before = values_of(bridge)
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "after")
    AutoTokenizer.from_pretrained(TINY).save_pretrained(tmp_path / "after")
    after = values_of(bridge)
    assert close(after, values_of(mx.load_model(tmp_path / "after")))
    assert not close(after, before)


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_a_dtype_by_its_name_and_of_the_bridge_alone(tmp_path, dtype):
    folder = saved("llama", tmp_path)
    assert mx.load_model("tiny", dtype=dtype).cfg.dtype == torch.bfloat16
    assert mx.load_model(folder, dtype=dtype).cfg.dtype == torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder)
    bridge = mx.load_model(model, dtype=dtype)
    assert next(bridge.original_model.parameters()).dtype == bridge.cfg.dtype == torch.bfloat16
    assert next(model.parameters()).dtype == torch.float32
    model.model.layers[1].bfloat16()
    assert {p.dtype for p in mx.load_model(model, dtype="float32").parameters()} == {torch.float32}
    assert next(model.model.layers[1].parameters()).dtype == torch.bfloat16
    model = model.bfloat16()
    assert mx.load_model(model).cfg.dtype == torch.bfloat16, "its own, if none is asked for"


@pytest.mark.parametrize("dtype", ["int8", "float", "half a float", torch.int64])
def test_what_is_no_dtype_of_weights_is_refused(dtype):
    if dtype == "float":  # another name of float32
        assert mx.load_model("tiny", dtype=dtype).cfg.dtype == torch.float32
        return
    with pytest.raises(ModelError, match="choose float32, bfloat16, float16 or float64"):
        mx.load_model("tiny", dtype=dtype)


@pytest.mark.parametrize("given", [str, lambda folder: folder, AutoTokenizer.from_pretrained])
def test_a_tokenizer_for_a_model_that_does_not_know_its_own(gpt2_folder, given):
    knows = AutoModelForCausalLM.from_pretrained(gpt2_folder)
    model = type(knows)(knows.config.from_dict(knows.config.to_dict()))
    model.load_state_dict(knows.state_dict())
    model.config.name_or_path = ""
    with pytest.raises(ModelError, match=r"does not know its tokenizer.*tokenizer=…"):
        mx.load_model(model)
    bridge = mx.load_model(model, tokenizer=given(TINY))
    assert close(values_of(bridge), values_of(mx.load_model(gpt2_folder)))
    with pytest.raises(ModelError, match="a bridge has its tokenizer"):
        mx.load_model(bridge, tokenizer=TINY)


def test_a_tokenizer_for_a_folder_without_one(tmp_path):
    folder = saved("llama", tmp_path)
    expected = values_of(mx.load_model(folder))
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        mx.load_model(folder)
    with pytest.raises(ModelError, match="has no tokenizer"):
        mx.load_model(AutoModelForCausalLM.from_pretrained(folder))
    assert close(values_of(mx.load_model(folder, tokenizer=TINY)), expected)


def test_a_class_of_the_users_own_is_taken_for_the_one_it_derives_from(tmp_path):
    class Mine(LlamaForCausalLM):
        pass

    folder = saved("llama", tmp_path)
    assert close(values_of(mx.load_model(Mine.from_pretrained(folder))), values_of_folder(folder))


def values_of_folder(folder):
    return values_of(mx.load_model(folder))


class Adapted(torch.nn.Module):
    """What PEFT's models do: an adapter beside a weight, merged on request, in place."""

    def __init__(self, model):
        super().__init__()
        self.base_model = model
        self.delta = torch.nn.Parameter(torch.full((32, 32), 0.1))

    def merge_and_unload(self):
        with torch.no_grad():
            self.base_model.model.layers[0].self_attn.o_proj.weight += self.delta
        return self.base_model


def test_an_adapter_is_merged_into_a_copy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", SimpleNamespace(PeftModel=Adapted))
    model = AutoModelForCausalLM.from_pretrained(saved("llama", tmp_path / "base"))
    plain = values_of(mx.load_model(model))
    wrapped = Adapted(model)
    adapted = values_of(mx.load_model(wrapped))
    assert close(values_of(mx.load_model(model)), plain), "the model stays without its adapter"
    merged = wrapped.merge_and_unload()
    assert close(adapted, values_of(mx.load_model(merged)))
    assert not close(adapted, plain)


def test_an_adapter_that_cannot_be_merged_is_told(monkeypatch):
    class Prompted(torch.nn.Module):
        pass

    monkeypatch.setitem(sys.modules, "peft", SimpleNamespace(PeftModel=Prompted))
    with pytest.raises(ModelError, match="adapter of Prompted cannot be merged"):
        mx.load_model(Prompted())


def test_other_objects_are_refused_with_the_way(tmp_path):
    with pytest.raises(ModelError, match="Linear is no model of the transformers library"):
        mx.load_model(torch.nn.Linear(2, 2))
    folder = saved("llama", tmp_path)
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ModelError, match="meta device, which holds no numbers"):
        mx.load_model(empty, tokenizer=TINY)
    trunk = AutoModelForCausalLM.from_pretrained(folder).model
    with pytest.raises(ModelError, match="LlamaModel"):
        mx.load_model(trunk)
    quantised = AutoModelForCausalLM.from_pretrained(folder)
    quantised.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ModelError, match="quantised by bitsandbytes"):
        mx.load_model(quantised)


WRONG = {
    "load_model(None)": "this is a NoneType",
    "load_model(5)": "a model is given by its name, its folder, or itself; this is a int",
    "load_model('tiny', dtype=16)": "dtype 16: choose float32",
    "load_model('tiny', tokenizer=3)": "tokenizer: a int; give one of transformers",
}


def test_values_of_a_wrong_type_end_in_the_same_error():
    """In a process whose types are not checked, as a user's is not."""
    code = f"""
import mechspex as mx
for call in {list(WRONG)}:
    try:
        eval("mx." + call)
    except mx.errors.ModelError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for line, said in zip(done.stdout.splitlines(), WRONG.values(), strict=True):
        assert said in line


def write_gguf(file, folder):
    """A Llama folder as the GGUF file that llama.cpp would read."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    config, described = model.config, json.loads((TINY / "tokenizer.json").read_text())
    words = described["model"]["vocab"]
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    # The last words make room for a merge, without which there is no such tokenizer.
    writer.add_token_list([*sorted(words, key=words.get)[:-3], "Ġ", "a", "Ġa"])
    writer.add_token_types([1] * len(words))
    writer.add_token_merges(["Ġ a"])
    for kind, token in (("bos", 1), ("eos", 1), ("unk", 2)):
        getattr(writer, f"add_{kind}_token_id")(token)
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    inner = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    turned = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        path, array = name.removesuffix(".weight"), tensor.numpy()
        if path in outer:
            writer.add_tensor(f"{outer[path]}.weight", array)
            continue
        _, _, layer, part = path.split(".", 3)
        if heads := turned.get(part.removeprefix("self_attn.")[0] if "_proj" in part else ""):
            # llama.cpp turns neighbouring pairs, transformers the two halves of a head.
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"blk.{layer}.{inner[part]}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_read_and_a_misnamed_one_told(tmp_path):
    folder = saved("llama", tmp_path / "folder")
    file = tmp_path / "model.gguf"
    write_gguf(file, folder)
    bridge = mx.load_model(file, tokenizer=TINY)
    assert close(values_of(bridge), values_of_folder(folder))
    assert mx.load_model(str(file), dtype="bfloat16").cfg.dtype == torch.bfloat16
    misnamed = tmp_path / "model.bin"
    misnamed.write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match="is a GGUF file by its content; rename it"):
        mx.load_model(misnamed)
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="is no GGUF file"):
        mx.load_model(other)
    other.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ModelError, match="could not be loaded"):
        mx.load_model(other)
    with pytest.raises(ModelError, match="no such folder or file"):
        mx.load_model(tmp_path / "gone.gguf")
