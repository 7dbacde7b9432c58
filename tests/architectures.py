"""Small random models of many architectures, and prompts of the tiny vocabulary for them."""

import functools

import numpy as np
import torch
from small_models import save_random
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import mechspex as mx

# Seven tokens with BOS, so that a sliding window of three has something to hide.
PROMPTS = [
    "apple bird boat apple snow door",
    "moon lake key moon tree flag",
    "wood wall door wood apple key",
]
CORRUPTED = [
    "flag bird boat apple snow door",
    "tree lake key moon tree flag",
    "snow wall door wood apple key",
]
ANSWERS, DISTRACTORS = [" bird", " lake", " wall"], [" boat", " key", " door"]
TASK = mx.Task(PROMPTS, ANSWERS, DISTRACTORS, CORRUPTED)


def _with(*bases, **options):
    return functools.reduce(dict.__or__, bases, {}) | options


_GPT = _with(vocab_size=206, bos_token_id=1, eos_token_id=1)
_GPT2 = _with(_GPT, n_positions=32, n_embd=32, n_layer=2, n_head=4)
_MHA = _with(
    _GPT, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=32, pad_token_id=0,
)  # fmt: skip
_GQA = _with(_MHA, num_key_value_heads=2)
_WIDE = _with(_GQA, head_dim=16)  # all heads together are wider than the residual stream
_LOCAL = _with(sliding_window=3, layer_types=["sliding_attention", "full_attention"])
_CAPS = _with(attn_logit_softcapping=2.0, final_logit_softcapping=5.0)
_NO_CAPS = dict.fromkeys(_CAPS)
FALCON = _with(_GPT, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, multi_query=False)
_OPT = _with(
    _GPT, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=128,
    max_position_embeddings=32, pad_token_id=0,
)  # fmt: skip
_EXPERTS = _with(_GQA, num_experts_per_tok=2)

# {name: (model type of transformers, options of its configuration)}
ARCHITECTURES = {
    "apertus": ("apertus", _GQA),
    "arcee": ("arcee", _GQA),
    "bloom": ("bloom", _with(_GPT, hidden_size=32, n_layer=2, n_head=4)),
    "codegen": ("codegen", _with(_GPT2, n_inner=24, rotary_dim=4, n_ctx=32)),
    "cohere": ("cohere", _with(_GQA, use_qk_norm=True, logit_scale=0.5)),
    "cohere2": ("cohere2", _with(_GQA, _LOCAL, logit_scale=0.5)),
    "ernie4_5": ("ernie4_5", _WIDE),
    "exaone4": ("exaone4", _with(_GQA, _LOCAL)),
    "falcon": ("falcon", _with(FALCON, multi_query=True)),
    "falcon alibi": ("falcon", _with(FALCON, alibi=True, parallel_attn=False)),
    "gemma": ("gemma", _WIDE),
    "gemma2 short window": ("gemma2", _with(_WIDE, _CAPS, sliding_window=3)),
    "gemma2 long window": ("gemma2", _with(_WIDE, _CAPS, sliding_window=16)),
    "gemma2 no caps": ("gemma2", _with(_WIDE, _NO_CAPS, sliding_window=3)),
    "gemma3": ("gemma3_text", _with(_WIDE, _LOCAL)),
    "glm": ("glm", _with(_GQA, head_dim=8)),
    "glm4": ("glm4", _with(_GQA, head_dim=8)),
    "gpt2": ("gpt2", _with(_GPT2, n_inner=24)),
    "gpt_bigcode": ("gpt_bigcode", _with(_GPT2, n_inner=24)),
    "gpt_neo": (
        "gpt_neo",
        _with(
            _GPT, hidden_size=32, intermediate_size=24, num_layers=2, num_heads=4, window_size=3,
            attention_types=[[["global", "local"], 1]], max_position_embeddings=32,
        ),
    ),
    "gpt_neox parallel": ("gpt_neox", _with(_MHA, rotary_pct=0.5, use_parallel_residual=True)),
    "gpt_neox sequential": ("gpt_neox", _with(_MHA, rotary_pct=0.5, use_parallel_residual=False)),
    "gpt_oss": ("gpt_oss", _with(_EXPERTS, _LOCAL, head_dim=16, num_local_experts=3)),
    "gptj": ("gptj", _with(_GPT2, n_inner=24, rotary_dim=4)),
    "granite": (
        "granite",
        _with(_GQA, attention_multiplier=0.5, residual_multiplier=0.4, logits_scaling=0.5),
    ),
    "hunyuan": ("hunyuan_v1_dense", _WIDE),
    "llama": ("llama", _WIDE),
    "llama biases": ("llama", _with(_GQA, attention_bias=True, mlp_bias=True)),
    "ministral3": ("ministral3", _WIDE),
    "mistral": ("mistral", _with(_WIDE, sliding_window=3)),
    "mixtral": ("mixtral", _with(_EXPERTS, num_local_experts=3)),
    "mpt": ("mpt", _with(_GPT, d_model=32, n_layers=2, n_heads=4, max_seq_len=32)),
    "nemotron": ("nemotron", _GQA),
    "olmo": ("olmo", _with(_GQA, clip_qkv=0.5)),
    "olmo2": ("olmo2", _GQA),
    "olmo3": ("olmo3", _with(_GQA, _LOCAL)),
    "olmoe": ("olmoe", _with(_EXPERTS, num_experts=3)),
    "openai-gpt": ("openai-gpt", _GPT2),
    # TransformerLens takes the neurons of OPT, XGLM and Falcon to be four times the width.
    "opt": ("opt", _with(_OPT, word_embed_proj_dim=32)),
    "opt norms after": ("opt", _with(_OPT, word_embed_proj_dim=24, do_layer_norm_before=False)),
    "phi": ("phi", _MHA),
    "phi3": ("phi3", _GQA),
    "qwen2": ("qwen2", _GQA),
    "qwen3": ("qwen3", _with(_WIDE, tie_word_embeddings=False)),
    "qwen3 tied": ("qwen3", _with(_WIDE, tie_word_embeddings=True)),
    "qwen3_moe": ("qwen3_moe", _with(_EXPERTS, num_experts=3, moe_intermediate_size=24)),
    # Its heads are gated: what the output projection reads are the heads after their gates.
    "qwen3_next": (
        "qwen3_next",
        _with(_WIDE, num_experts=0, mlp_only_layers=[0, 1], layer_types=["full_attention"] * 2),
    ),
    "seed_oss": ("seed_oss", _WIDE),
    "smollm3": ("smollm3", _with(_GQA, no_rope_layers=[1, 0])),
    "stablelm": ("stablelm", _GQA),
    "stablelm parallel": ("stablelm", _with(_GQA, use_parallel_residual=True, qk_layernorm=True)),
    "starcoder2": ("starcoder2", _with(_GQA, sliding_window=3)),
    "vaultgemma": ("vaultgemma", _with(_WIDE, _LOCAL)),
    "xglm": (
        "xglm",
        _with(
            _GPT, d_model=32, num_layers=2, attention_heads=4, ffn_dim=128, pad_token_id=0,
            max_position_embeddings=32,
        ),
    ),
}  # fmt: skip


def save_architecture(name, folder, **others):
    """A small random model of an architecture, as a user would have it."""
    model_type, options = ARCHITECTURES[name]
    config = AutoConfig.for_model(model_type, **options | others)
    save_random(AutoModelForCausalLM.from_config, config, folder)
    _centre_norms_at_one(folder)
    return folder


def load_saved(folder, **options):
    """Such a model as a bridge, with exactly the tokenizer that was saved."""
    model = mx.load_model(folder, **options)
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    return model


def _centre_norms_at_one(folder):
    """Scales near zero would make attention flat, and blind to positions, windows and caps."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for module in model.modules():
            if "norm" in type(module).__name__.lower() and hasattr(module, "weight"):
                module.get_parameter("weight").add_(1)
    model.save_pretrained(folder)


def rounding(values):
    """What sums in another order may differ by, in float32 and for values of this size."""
    return 2e-5 * np.abs(values).max()
