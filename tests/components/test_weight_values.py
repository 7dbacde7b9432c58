"""Two models' weights, part by part, against models put together from both by hand."""

import copy

import numpy as np
import pytest
import torch
from architectures import ANSWERS, DISTRACTORS, PROMPTS, save_architecture
from transformers import AutoModelForCausalLM
from value_function_laws import check_laws

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.errors import ModelError, Refused, ShapeError, TaskError
from mechspex.models.weights import weights_hash

TASK = mx.Task(PROMPTS, ANSWERS, DISTRACTORS)
# {architecture: what the weights of attention and of MLPs are called in transformers}.
CALLED = {
    "gpt2": (".attn.", ".mlp."),
    "gpt_neox parallel": (".attention.", ".mlp."),
    "gemma2 long window": (".self_attn.", ".mlp."),
    "llama": (".self_attn.", ".mlp."),
    "mixtral": (".self_attn.", ".mlp."),
    "opt": (".self_attn.", ".fc"),
}


def trained(model, seed=1, size=0.05, wanted=lambda name: True):
    """A copy whose weights have moved."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.original_model.named_parameters():
            if wanted(name):
                weight.add_(size * torch.randn(weight.shape, generator=generator).to(weight))
    return model


def in_the_second_attention(name):
    return "layers.1." in name and ".attn." in name


@pytest.fixture
def pair(tmp_path):
    """(architecture) → the folder of a model, and of another one of the same shape."""

    def save(name):
        folders = tmp_path / "before", tmp_path / "after"
        for folder in folders:
            save_architecture(name, folder)
        generator = torch.Generator().manual_seed(1)
        plain = own_class(folders[1])
        with torch.no_grad():
            for weight in plain.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
        plain.save_pretrained(folders[1])
        return folders

    return save


def own_class(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def part_of(name, called):
    """The unit that a weight of transformers belongs to."""
    layer = next((piece for piece in name.split(".") if piece.isdigit()), None)
    attention, mlp = called
    if layer is not None and attention in name:
        return f"L{layer}ATTN"
    return f"L{layer}MLP" if layer is not None and mlp in name else "rest"


@pytest.mark.parametrize("name", CALLED)
def test_values_are_those_of_models_put_together_by_hand(pair, name):
    folders = pair(name)
    before, after = map(own_class, folders)
    values = mx.WeightValues(folders[0], folders[1], TASK)
    assert values.units.names == ("L0ATTN", "L0MLP", "L1ATTN", "L1MLP", "rest")
    masks = all_masks(5)
    measured = values(masks)
    ids = [values.after.tokenizer(text).input_ids for text in PROMPTS]
    pairs = [
        [values.after.tokenizer(word, add_special_tokens=False).input_ids[0] for word in words]
        for words in (ANSWERS, DISTRACTORS)
    ]
    both, expected = copy.deepcopy(after), np.empty_like(measured)
    for row, mask in enumerate(masks):
        kept = dict(zip(values.units.names, mask, strict=True))
        theirs, ours = before.state_dict(), after.state_dict()
        both.load_state_dict(
            {key: (ours if kept[part_of(key, CALLED[name])] else theirs)[key] for key in ours}
        )
        with torch.no_grad():
            logits = torch.stack([both(torch.tensor([one])).logits[0, -1] for one in ids])
        prompts = torch.arange(len(PROMPTS))
        expected[row] = logits[prompts, pairs[0]] - logits[prompts, pairs[1]]
    assert np.abs(measured - expected).max() <= 2e-5 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).min() > 1e-2, "the parts matter"


def test_the_laws_of_value_functions(tiny):
    after = trained(mx.load_model("tiny"))
    task = mx.load_task("induction", tiny, n_prompts=5)
    values = mx.WeightValues(tiny, after, task)
    assert values.outputs == tuple(task.prompts)
    untouched = mx.ComponentValues(after, task, "heads")(np.ones((1, 8), dtype=bool))[0]
    check_laws(values, untouched)
    other = mx.ComponentValues(tiny, task, "heads")(np.ones((1, 8), dtype=bool))[0]
    assert np.allclose(values(np.zeros((1, values.n_units), dtype=bool))[0], other, atol=1e-5)
    with pytest.raises(ShapeError):
        values(np.ones((1, 99), dtype=bool))


def test_only_parts_whose_weights_moved_are_units_and_both_models_stay_as_they_are(tiny):
    after = trained(mx.load_model("tiny"), wanted=in_the_second_attention)
    hashes = [weights_hash(model) for model in (tiny, after)]
    values = mx.WeightValues(tiny, after, "induction")
    assert values.units.names == ("L1ATTN",)
    values(all_masks(1))
    assert [weights_hash(model) for model in (tiny, after)] == hashes
    # A failing forward puts them back too.
    values._metric = None  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        values(np.zeros((1, 1), dtype=bool))
    assert [weights_hash(model) for model in (tiny, after)] == hashes


def test_an_edit_is_found_where_it_was_made_and_rounding_elsewhere_is_not(tiny):
    """Weights of all parts differ a little, those of one attention by much: it has the effect."""
    after = trained(trained(mx.load_model("tiny"), size=1e-6), 2, 0.3, in_the_second_attention)
    values = mx.WeightValues(tiny, after, mx.load_task("induction", tiny, n_prompts=12))
    assert values.n_units > 2
    effects = values(~np.eye(values.n_units, dtype=bool)) - values(
        np.ones((1, values.n_units), dtype=bool)
    )
    sizes = dict(zip(values.units.names, np.abs(effects).max(axis=1), strict=True))
    assert sizes.pop("L1ATTN") > 100 * max(sizes.values())


def test_values_say_where_they_come_from(tiny):
    task = mx.load_task("induction", tiny, n_prompts=3)
    one, two = (trained(mx.load_model("tiny"), seed) for seed in (1, 2))
    said = [mx.WeightValues(*models, task).configuration for models in (
        (tiny, one), (tiny, two), (two, one), (tiny, one)
    )]  # fmt: skip
    assert said[0] == said[3]
    assert len({str(each) for each in said}) == 3
    assert "weights of" in said[0]["ablation"]


def test_another_process_makes_the_same(pair):
    before, after = map(mx.load_model, pair("gpt2"))
    values = mx.WeightValues(before, after, TASK)
    made = values.recipe.make()
    assert made.configuration == values.configuration
    assert made.units == values.units
    assert np.array_equal(made(all_masks(5)), values(all_masks(5)))
    with mx.executor("processes:1") as workers:
        assert np.allclose(workers.on(values)(all_masks(5)), values(all_masks(5)), atol=1e-5)


def test_explain_takes_them(tiny):
    after = trained(mx.load_model("tiny"), size=0.1)
    values = mx.WeightValues(tiny, after, mx.load_task("induction", tiny, n_prompts=6))
    answer = mx.explain(values, n_masks=2**values.n_units)
    assert answer.recovery.r2 > 0.9


def test_what_cannot_be_exchanged_is_refused(tiny, tmp_path):
    with pytest.raises(ModelError, match="same weights"):
        mx.WeightValues(tiny, mx.load_model("tiny"), "induction")
    gpt2 = mx.load_model(save_architecture("gpt2", tmp_path / "gpt2"))
    with pytest.raises(ModelError, match="only .* has the weight"):
        mx.WeightValues(tiny, gpt2, TASK)
    wide = trained(mx.load_model("tiny", dtype=torch.bfloat16))
    with pytest.raises(ModelError, match="bfloat16"):
        mx.WeightValues(tiny, wide, "induction")
    after = trained(mx.load_model("tiny"))
    values = mx.WeightValues(tiny, after, "induction")
    masks = np.ones((1, values.n_units), dtype=bool)
    after.original_model.train()
    with pytest.raises(ModelError, match="train mode"):
        values(masks)
    after.original_model.eval()
    hooked = after.hooks(fwd_hooks=[("blocks.0.hook_out", lambda out, hook: out)])
    with hooked, pytest.raises(ModelError, match="carries hooks"):
        values(masks)
    values(masks)
    trained(after)
    with pytest.raises(ModelError, match="have changed since"):
        values(masks)
    with pytest.raises(Refused):
        mx.WeightValues(tiny, after, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TaskError):
        mx.WeightValues(tiny, after, mx.Task(["apple"] * 2, [" nonsense words"] * 2))


def test_models_that_differ_in_more_than_weights_are_refused(tmp_path):
    first = mx.load_model(save_architecture("granite", tmp_path / "granite"))
    other = trained(mx.load_model(tmp_path / "granite"))
    for block in other.blocks:
        block.original_component.residual_multiplier = 0.9
    with pytest.raises(ModelError, match="in more than their weights"):
        mx.WeightValues(first, other, TASK)
