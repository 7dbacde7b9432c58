"""Values of many architectures, against the raw Hugging Face model with hooks of its own."""

import functools
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
import torch
from raw_oracle import RawOracle
from small_models import device_of, save_random
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from value_function_laws import check_laws

import mechspex as mx
from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import UnitSet
from mechspex.errors import ModelError

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
# Two prompts, each followed by a longer one. The oracle takes prompts one by one, and means over
# those of equal length.
TWO_LENGTHS = mx.Task(
    [f"{prompt}{more}" for prompt in PROMPTS[:2] for more in ("", " cat dog")],
    [" bird", " bird", " lake", " lake"],
    [" boat", " boat", " key", " key"],
    [f"{prompt}{more}" for prompt in CORRUPTED[:2] for more in ("", " cat dog")],
)


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
_FALCON = _with(_GPT, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, multi_query=False)
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
    "falcon": ("falcon", _with(_FALCON, multi_query=True)),
    "falcon alibi": ("falcon", _with(_FALCON, alibi=True, parallel_attn=False)),
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
MIXTURES = ["mixtral", "qwen3_moe", "olmoe", "gpt_oss"]


def everything(model):
    """All heads, neurons and MLPs; the neurons of experts are no units."""
    experts = model.original_model.config.model_type in MIXTURES
    return mx.heads(model) + mx.mlps(model) + (UnitSet() if experts else mx.neurons(model))


UNITS = {
    "everything": everything,
    "heads": mx.heads,
    "neurons": mx.neurons,
    "mlps": mx.mlps,
    # Clean keys and values stand in for all positions before the fourth.
    "heads at late positions": lambda model: mx.heads(model, positions=[4, 6]),
    "heads at positions + mlps": lambda model: (
        mx.heads(model, positions=[0, 2, 6]) + mx.mlps(model)
    ),
}

# Every kind of unit and ablation where norms, gates and attention differ most. Elsewhere the mean,
# of all sites at once, of positions that others are computed before, and of some positions beside
# whole layers.
THOROUGH = ["gpt2", "llama", "gemma2 short window"]
SITES = ["everything", "heads at late positions", "heads at positions + mlps"]
CASES = [
    pytest.param(name, kind, ablation, id=f"{name}-{kind}-{ablation}")
    for name in ARCHITECTURES
    for kind in (UNITS if name in THOROUGH else SITES)
    for ablation in (["mean", "zero", "corrupted"] if name in THOROUGH else ["mean"])
]


@pytest.fixture(scope="module")
def build(tmp_path_factory, device):
    """A function from an architecture's name to its folder and its bridge, each made once."""

    @functools.cache
    def build(name):
        model_type, options = ARCHITECTURES[name]
        config = AutoConfig.for_model(model_type, **options)
        folder = tmp_path_factory.mktemp(model_type)
        save_random(AutoModelForCausalLM.from_config, config, folder)
        _centre_norms_at_one(folder)
        model = mx.load_model(folder, device=device)
        # Transformers reads a Qwen2 folder by a class of its own, whatever was saved there.
        model.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        return folder, model

    return build


def _centre_norms_at_one(folder):
    """Scales near zero would make attention flat, and blind to positions, windows and caps."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for module in model.modules():
            if "norm" in type(module).__name__.lower() and hasattr(module, "weight"):
                module.get_parameter("weight").add_(1)
    model.save_pretrained(folder)


def some_masks(units):
    """Everything, nothing, some in between; and some of each kind, where others would hide it."""
    n_units, kinds = len(units), np.array([unit.kind for unit in units])
    if n_units == 2:
        return all_masks(2)
    ends = np.array([[True] * n_units, [False] * n_units])
    between = sample_masks(n_units, 4, keep=0.5, seed=1)
    if len(set(kinds)) == 1:
        return np.concatenate([ends, between])
    halves = np.arange(n_units) % 2 == np.array([[0], [1]])
    alone = [halves | (kinds != kind) for kind in sorted(set(kinds))]
    return np.concatenate([ends, between[:2], *alone])


def rounding(values):
    """What sums in another order may differ by, in float32 and for values of this size."""
    return 2e-5 * np.abs(values).max()


class Measured(NamedTuple):
    """Values ``[mask, prompt]`` of the raw model and of ours, and what gave ours."""

    expected: np.ndarray
    measured: np.ndarray
    values: mx.ComponentValues


@pytest.fixture(scope="module")
def measure(build):
    """A function from an architecture, a kind of unit and an ablation to what is measured, once."""

    @functools.cache
    def measure(name, kind, ablation):
        folder, model = build(name)
        units = UNITS[kind](model)
        masks = some_masks(units)
        task = TWO_LENGTHS if kind == "everything" else TASK
        expected = RawOracle(folder, task, units, device_of(model)).values(masks, ablation)
        values = mx.ComponentValues(model, task, units, ablation)
        return Measured(expected, values(masks), values)

    return measure


@pytest.mark.parametrize(("name", "kind", "ablation"), CASES)
def test_values_are_those_of_the_raw_model(name, kind, ablation, measure):
    expected, measured, values = measure(name, kind, ablation)
    assert values.through_bridge is None
    assert np.abs(measured - expected).max() < rounding(expected)
    apart = [abs(one - other).max() for one, other in combinations(expected, 2)]
    assert min(apart) > 20 * rounding(expected), "a mask taken for another would show"
    if values.task is TWO_LENGTHS:
        apart = np.abs(expected[:, ::2] - expected[:, 1::2])
        assert apart.max() > 20 * rounding(expected), "the length matters"


@pytest.mark.parametrize("name", THOROUGH)
@pytest.mark.parametrize(
    "kind", ["heads at positions + mlps", "heads at late positions", "neurons"]
)
def test_resampled_values_are_those_of_the_raw_model(name, kind, build):
    """Each prompt takes its references from one other prompt, at all sites and under all masks."""
    folder, model = build(name)
    units = UNITS[kind](model)
    masks = some_masks(units)
    oracle = RawOracle(folder, TASK, units, device_of(model))
    # With three prompts there are two ways in which all change places.
    ways = [oracle.values(masks, "resample", others) for others in ([1, 2, 0], [2, 0, 1])]
    met = set()
    for seed in (0, 3):
        measured = mx.ComponentValues(model, TASK, units, "resample", seed=seed)(masks)
        same = [np.abs(measured - expected).max() < rounding(expected) for expected in ways]
        assert sum(same) == 1
        met.add(same[0])
    assert len(met) == 2, "the seed decides"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_laws(name, measure):
    expected, _, values = measure(name, "everything", "mean")
    check_laws(values, expected[0], tolerance=2 * rounding(expected))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gpt_neox parallel", "gpt_neox sequential"),
        ("qwen3", "qwen3 tied"),
        ("gemma2 short window", "gemma2 long window"),
        ("gemma2 short window", "gemma2 no caps"),
        ("stablelm", "stablelm parallel"),
    ],
)
def test_the_variants_of_an_architecture_really_differ(one, other, measure):
    whole, other_whole = (measure(name, "everything", "mean").measured[0] for name in (one, other))
    assert np.abs(whole - other_whole).max() > 1000 * rounding(whole)


@pytest.mark.parametrize("name", MIXTURES)
def test_neurons_of_a_mixture_of_experts_are_refused(name, build):
    with pytest.raises(ModelError, match="experts"):
        mx.neurons(build(name)[1])


def test_a_bridge_that_is_not_the_model_it_wraps_is_told(tmp_path):
    """TransformerLens takes the grouped queries, keys and values of Falcon apart wrongly."""
    options = _with(_FALCON, new_decoder_architecture=True, num_kv_heads=2)
    config = AutoConfig.for_model("falcon", **options)
    model = mx.load_model(save_random(AutoModelForCausalLM.from_config, config, tmp_path))
    with pytest.warns(UserWarning, match="differ by .* from those of the model it wraps"):
        mx.ComponentValues(model, TASK, mx.heads(model))


# Lengths of four and six tokens, answers of one and of two; some begin alike.
CONTINUED = mx.Task(
    ["apple bird boat apple", "moon lake key moon tree flag", "wood wall door wood", "cat dog cat"],
    [" bird tree", " lake", " wall key", " dog moon"],
    [" boat", " key", " wall apple", " bird lake"],
    ["flag bird boat apple", "moon lake key moon snow flag", "snow wall door wood", "key dog cat"],
)
TEN = ("gpt2", "gpt_neox parallel", "gptj", "opt", "phi", "llama", "mistral", "qwen2", "qwen3",
       "gemma2 short window")  # fmt: skip


@pytest.mark.parametrize("ablation", ["mean", "zero", "corrupted"])
@pytest.mark.parametrize("name", TEN)
def test_whole_continuations_are_those_of_the_raw_model(name, ablation, build):
    folder, model = build(name)
    units = UNITS["everything"](model)
    rng = np.random.default_rng(0)
    masks = np.concatenate([rng.random((3, len(units))) < 0.7, np.ones((1, len(units)), bool)])
    expected = RawOracle(folder, CONTINUED, units).continuation_values(masks, ablation, CONTINUED)
    values = mx.ComponentValues(model, CONTINUED, units, ablation)
    assert values.through_bridge is None
    measured = values(masks)
    assert np.abs(measured - expected).max() < 3 * rounding(expected)
    assert np.ptp(expected, axis=0).min() > 100 * rounding(expected)
