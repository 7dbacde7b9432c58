"""Tokenizers whose tokens are no words: what the model reads without some of a text's parts."""

from typing import Any

import numpy as np
import pytest
import torch
from small_models import save_random
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import mechspex as mx

READ = ["can go the line new x Lee Dr. said can't"]
TEXTS = {
    "emoji": "x 😀👍🏽 can't go",
    "joined emoji": "new 👨‍👩‍👧 can",
    "right to left": "שלום עולם مرحبا x",
    "CRLF": "new\r\nline\r\n\r\nx go",
    "no blanks": "日本語 x",
    "combining marks": "a\u0301 e\u0301 x",
}


def byte_level():
    read = Tokenizer(models.BPE())
    read.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    read.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    read.train_from_iterator(READ, trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=letters, special_tokens=["<bos>"], show_progress=False
    ))  # fmt: skip
    return read


def sentence_piece():
    read = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    read.pre_tokenizer = pre_tokenizers.Metaspace()
    read.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    in_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    read.train_from_iterator(READ, trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<bos>", "<unk>", *in_bytes], show_progress=False
    ))  # fmt: skip
    return read


@pytest.fixture(scope="module", params=[byte_level, sentence_piece], ids=lambda one: one.__name__)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.__name__)
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    save_random(LlamaForCausalLM, config, folder)
    names = {f"{name}_token": "<bos>" for name in ("bos", "eos", "pad")}
    PreTrainedTokenizerFast(tokenizer_object=request.param(), **names).save_pretrained(folder)
    return mx.load_model(folder)


def by_hand(model, text, kept=None):
    """Log-probability of " can" after a text, positions that are not kept being hidden."""
    own, read = model.original_model, model.tokenizer
    before = read(text, add_special_tokens=False).input_ids
    after = read(text + " can", add_special_tokens=False).input_ids[len(before) :]
    rows = torch.tensor([[*before, *after]])
    n = rows.shape[1]
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    if kept is not None:
        seen = seen & (torch.tensor([*kept, *[True] * len(after)]) | torch.eye(n, dtype=torch.bool))
    bias = torch.zeros(n, n).masked_fill(~seen, torch.finfo(torch.float32).min)
    with torch.inference_mode():
        log_p = own(rows, attention_mask=bias[None, None]).logits[0].log_softmax(-1)
    return sum(log_p[at - 1, rows[0, at]].item() for at in range(len(before), n))


@pytest.mark.parametrize("by", ["word", "token"])
@pytest.mark.parametrize("kind", TEXTS)
def test_values_of_any_script_are_those_of_the_raw_model(model, kind, by):
    text = TEXTS[kind]
    options: dict[str, Any] = {"by": by, "response": " can", "prepend_bos": False}
    deleted = mx.PromptValues(model, text, " go", **options)
    units: Any = deleted.units
    assert "".join(a + b for a, b in zip(units.between, [*units.pieces, ""], strict=True)) == text
    masks = np.ones((3, len(units)), dtype=bool)
    masks[1, 0] = masks[2, -1] = False
    expected = [by_hand(model, deleted.ablated(mask)[0]) for mask in masks]
    assert np.abs(deleted(masks)[:, 0] - expected).max() < 1e-3
    hidden = mx.PromptValues(model, text, " go", ablation="hide", **options)
    whole = hidden.prompts[0]
    places = model.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    expected = []
    for mask in masks:
        gone = [span for span, keep in zip(units.spans, mask, strict=True) if not keep]
        kept = [
            not any(_within(whole, a, b, span) for span in gone)
            for a, b in places["offset_mapping"]
        ]
        expected.append(by_hand(model, whole, kept))
    assert np.abs(hidden(masks)[:, 0] - expected).max() < 1e-3


def _within(text, begin, end, span):
    """Whether the letters of a token are those of a part."""
    begin += len(text[begin:end]) - len(text[begin:end].lstrip())
    return begin < span[1] and end > span[0] and begin < end
