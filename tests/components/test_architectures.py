"""Values of many architectures, against the raw Hugging Face model with hooks of its own."""

import functools
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
from architectures import (
    ARCHITECTURES,
    CORRUPTED,
    FALCON,
    PROMPTS,
    TASK,
    rounding,
    save_architecture,
)
from raw_oracle import RawOracle
from small_models import device_of, save_random
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from value_function_laws import check_laws

import mechspex as mx
from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import UnitSet
from mechspex.errors import ModelError

# Two prompts, each followed by a longer one. The oracle takes prompts one by one, and means over
# those of equal length.
TWO_LENGTHS = mx.Task(
    [f"{prompt}{more}" for prompt in PROMPTS[:2] for more in ("", " cat dog")],
    [" bird", " bird", " lake", " lake"],
    [" boat", " boat", " key", " key"],
    [f"{prompt}{more}" for prompt in CORRUPTED[:2] for more in ("", " cat dog")],
)


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
        folder = save_architecture(name, tmp_path_factory.mktemp(ARCHITECTURES[name][0]))
        model = mx.load_model(folder, device=device)
        # Transformers reads a Qwen2 folder by a class of its own, whatever was saved there.
        model.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        return folder, model

    return build


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
    options = FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}
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
