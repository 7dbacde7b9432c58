"""The tokenizer as its folder has it, whatever a bridge makes of it."""

import gc
import json
import weakref
from typing import Any

import pytest
from tokenizers import Tokenizer as Rust
from tokenizers import models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import mechspex as mx
from mechspex.errors import ModelError
from mechspex.models.shipped import TINY
from mechspex.models.tokenizer import FolderTokenizer, own_tokenizer

SPECIAL = ["<pad>", "<a>", "<b>", "<unk>"]
WORDS = ["river", "stone", "cloud", "fire", "<", ">", "a"]
TEXTS = ["river stone", "cloud", "stone <a> fire", "<a> river", "river stone cloud fire <b>", ""]

# {what a folder does with a text: its template, and the special tokens it declares}
TEMPLATES = {
    "nothing": ("$A", {}),
    "declares a BOS and does not add it": ("$A", {"bos_token": "<a>"}),
    "adds its BOS": ("<a> $A", {"bos_token": "<a>"}),
    "adds BOS and EOS": ("<a> $A <b>", {"bos_token": "<a>", "eos_token": "<b>"}),
    "adds an EOS alone": ("$A <b>", {"bos_token": "<a>", "eos_token": "<b>"}),
    "adds a token it does not declare": ("<b> $A", {"bos_token": "<a>"}),
    "CLS and SEP": ("<a> $A <b>", {"cls_token": "<a>", "sep_token": "<b>"}),
    "CLS and a BOS": ("<a> $A", {"cls_token": "<a>", "bos_token": "<b>"}),
}  # fmt: skip
_SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SIZES)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_SIZES)),
}


def made(template, special) -> Any:
    ids = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    rust = Rust(models.WordLevel(ids, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rust.post_processor = TemplateProcessing(
        single=template, special_tokens=[("<a>", ids["<a>"]), ("<b>", ids["<b>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rust, unk_token="<unk>", pad_token="<pad>", **special
    )


@pytest.fixture(params=TEMPLATES)
def folder(request, tmp_path):
    made(*TEMPLATES[request.param]).save_pretrained(tmp_path)
    return tmp_path


def ids_of(tokenizer):
    return [tokenizer(text).input_ids for text in TEXTS]


@pytest.mark.parametrize("architecture", MODELS)
def test_it_reads_as_the_folder_does(folder, architecture):
    MODELS[architecture]().save_pretrained(folder)
    expected = ids_of(AutoTokenizer.from_pretrained(folder))
    model = mx.load_model(folder)
    assert ids_of(own_tokenizer(model.tokenizer)) == expected
    assert ids_of(own_tokenizer(own_tokenizer(model.tokenizer))) == expected
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    assert ids_of(own_tokenizer(bridge.tokenizer)) == expected, "a bridge of the user's own"
    assert FolderTokenizer.reads(folder)
    assert ids_of(FolderTokenizer(folder)) == expected


@pytest.mark.parametrize("name", [name for name in TEMPLATES if "bos_token" in TEMPLATES[name][1]])
def test_what_a_bridge_does_to_its_tokenizer_goes_on_being_done(tmp_path, name):
    """`model.tokenizer` is the bridge's affair: its own functions rest on it."""
    made(*TEMPLATES[name]).save_pretrained(tmp_path)
    MODELS["llama"]().save_pretrained(tmp_path)
    ours = mx.load_model(tmp_path)
    theirs = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    for prepend_bos in (None, True, False):
        one, other = (m.to_tokens("river stone", prepend_bos=prepend_bos) for m in (ours, theirs))
        assert one.tolist() == other.tolist()


def test_a_tokenizer_whose_folder_is_gone_or_another_stays(tmp_path):
    MODELS["llama"]().save_pretrained(tmp_path)
    made("$A", {"bos_token": "<a>"}).save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    words = described["model"]["vocab"]
    words["river"], words["stone"] = words["stone"], words["river"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    assert own_tokenizer(bridge.tokenizer) is bridge.tokenizer
    loose = made("$A <b>", {"bos_token": "<a>", "eos_token": "<b>"})
    assert own_tokenizer(loose) is loose


def test_a_tokenizer_that_is_no_longer_used_is_let_go():
    tokenizer = made("$A", {"bos_token": "<a>"})
    own_tokenizer(tokenizer)
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None


def test_the_shipped_models_tokenizers_agree(tiny):
    texts = ["apple bird boat", " snow", "zebra apple"]
    own = own_tokenizer(tiny.tokenizer)
    light = FolderTokenizer(TINY)
    assert FolderTokenizer.reads(TINY)
    for text in texts:
        expected = AutoTokenizer.from_pretrained(TINY)(text).input_ids
        assert own(text).input_ids == light(text).input_ids == expected


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_class": "Qwen2Tokenizer"},
        {"cls_token": "stone"},
        {"extra_special_tokens": ["fire"]},
        {"split_special_tokens": True},
    ],
)
def test_folders_that_the_light_one_would_read_otherwise_are_left_to_transformers(tmp_path, change):
    MODELS["llama"]().save_pretrained(tmp_path)
    made("$A", {"bos_token": "<a>"}).save_pretrained(tmp_path)
    assert FolderTokenizer.reads(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | change
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert not FolderTokenizer.reads(tmp_path)


def test_transformers_reads_qwen2_by_a_class_of_its_own_and_so_does_a_loaded_model(tmp_path):
    Qwen2ForCausalLM(Qwen2Config(**_SIZES, num_key_value_heads=2)).save_pretrained(tmp_path)
    made("$A", {"bos_token": "<a>"}).save_pretrained(tmp_path)
    expected = AutoTokenizer.from_pretrained(tmp_path)
    assert ids_of(expected) != ids_of(made("$A", {"bos_token": "<a>"}))
    assert ids_of(own_tokenizer(mx.load_model(tmp_path).tokenizer)) == ids_of(expected)
    assert not FolderTokenizer.reads(tmp_path)


def test_padding_and_truncation_left_in_the_file_are_not_applied(tmp_path):
    MODELS["llama"]().save_pretrained(tmp_path)
    tokenizer = made("$A", {})
    tokenizer(["river", "river stone cloud"], padding=True, truncation=True, max_length=2)
    tokenizer.save_pretrained(tmp_path)
    text = "river stone cloud fire"
    expected = AutoTokenizer.from_pretrained(tmp_path)(text).input_ids
    assert FolderTokenizer(tmp_path)(text).input_ids == expected


class PanicException(BaseException):
    """As the library of tokenizers raises it."""


def test_a_panic_of_the_library_is_a_typed_error(monkeypatch):
    tokenizer = FolderTokenizer(TINY)

    class Panicking:
        def encode(self, *_, **__):
            raise PanicException("no entry found for key")

    monkeypatch.setattr(tokenizer, "_rust", Panicking())
    with pytest.raises(ModelError, match="cannot read 'key cow' .no entry found for key."):
        tokenizer("key cow")
