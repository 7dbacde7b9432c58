"""The cached forward on a plain model, against the plain one through the bridge."""

import numpy as np
import pytest
import torch
from small_models import ANSWERS, CORRUPTED, DISTRACTORS, PROMPTS, save_gpt2, save_random
from transformer_lens.model_bridge import TransformerBridge
from transformers import BertConfig, BertForMaskedLM
from value_function_laws import check_laws

import mechspex as mx
from mechspex.components import cached_forward, precision, proof
from mechspex.core.masks import as_neighbours, sample_masks
from mechspex.errors import ModelError, ShapeError, TaskError
from mechspex.forward import parted_rows
from mechspex.forward.machine import product_rate
from mechspex.forward.plain_model import PlainModel
from mechspex.models.bridge import edited_logits
from mechspex.runs.run import Run
from mechspex.tasks.next_token import encode


@pytest.fixture(scope="module")
def task():
    return mx.Task(PROMPTS, ANSWERS, DISTRACTORS, CORRUPTED)


@pytest.fixture(scope="module")
def deep(tmp_path_factory, device):
    """Six layers, so that there is something to skip."""
    return mx.load_model(save_gpt2(tmp_path_factory.mktemp("deep"), n_layers=6), device=device)


# Hooks are what many tests here are about.
pytestmark = pytest.mark.filterwarnings("ignore:the model carries hooks")


def plainly(values, masks):
    """The same values through the bridge: a hook that changes nothing takes the short way away."""
    point = "blocks.0.hook_resid_pre"
    with values.model.hooks(fwd_hooks=[(point, lambda activation, hook: activation)]):
        return values(masks)


UNITS = {
    "heads": mx.heads,
    "neurons": mx.neurons,
    "mlps": mx.mlps,
    "late heads": lambda model: mx.heads(model, layers=[4, 5]),
    "heads at the last token": lambda model: mx.heads(model, positions=[4]),
    "late at late positions": lambda model: mx.neurons(model, layers=[3, 5], positions=[2, 4]),
    "a sum": lambda model: mx.heads(model, positions=[3]) + mx.mlps(model, layers=[5]),
}


# References of one number, of one a position, and of one a prompt and position, at all units; and
# at all of them what reads the whole vocabulary, as each cuts the last block in a way of its own.
CASES = [
    *((units, ablation, "logit_difference")
      for units in UNITS for ablation in ("zero", "mean", "resample", "corrupted")),
    *((units, "resample", "kl_divergence") for units in UNITS),
]  # fmt: skip


@pytest.mark.parametrize(("units", "ablation", "metric"), CASES)
def test_the_cached_forward_is_the_plain_one(deep, units, ablation, metric):
    task = mx.Task(PROMPTS, ANSWERS, DISTRACTORS, CORRUPTED, metric=metric)
    values = mx.ComponentValues(deep, task, UNITS[units](deep), ablation)
    assert values.through_bridge is None
    # Sparse masks begin late; dense ones at the first unit.
    masks = np.concatenate(
        [sample_masks(values.n_units, 12, keep=keep, seed=3) for keep in (0.95, 0.5)]
    )
    masks[0] = True
    assert np.allclose(values(masks), plainly(values, masks), atol=2e-4)


LAWFUL = {units: {} for units in UNITS} | {
    "heads, rescaled": {"rescale": True},
    "neurons, bf16": {"precision": "bf16"},
}


@pytest.mark.usefixtures("bf16_pays")
@pytest.mark.parametrize("case", LAWFUL)
def test_laws(deep, task, case):
    units = UNITS[case.split(",")[0]](deep)
    values = mx.ComponentValues(deep, task, units, "corrupted", **LAWFUL[case])
    exact = plainly(values.in_own_dtype, np.ones((1, len(units)), dtype=bool))[0]
    error = values.precision_error
    check_laws(values, exact, tolerance=2e-4 if error is None else 3 * error.largest)


def test_a_copy_that_computes_something_else_is_not_used(deep, task, monkeypatch):
    logits = PlainModel.logits
    monkeypatch.setattr(
        PlainModel, "logits", lambda *args, **options: 1.001 * logits(*args, **options)
    )
    with pytest.warns(UserWarning, match="differ by .* from those of the model it wraps"):
        values = mx.ComponentValues(deep, task, mx.heads(deep))
    assert "off by" in str(values.through_bridge)
    masks = sample_masks(18, 4, seed=0)
    assert np.array_equal(values(masks), plainly(values, masks))


def test_a_copy_that_starts_wrong_is_not_used(deep, task, monkeypatch):
    """Clean values cannot tell: the masks do, and no one is warned of the bridge."""
    monkeypatch.setattr(cached_forward, "_first", lambda masks, *_, **__: np.full(len(masks), 3))
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    assert "off by" in str(values.through_bridge)


def test_a_model_spread_by_a_device_map_gives_the_same_values(llama_folder, task, tmp_path):
    """One layer lies on disk, and accelerate fetches it for every forward."""
    where = dict.fromkeys(["embed_tokens", "layers.0", "norm", "rotary_emb"], "cpu")
    where = {f"model.{name}": place for name, place in (where | {"layers.1": "disk"}).items()}
    spread = TransformerBridge.boot_transformers(
        str(llama_folder), device_map=where | {"lm_head": "cpu"}, dtype=torch.float32
    ).eval()
    values = mx.ComponentValues(spread, task, mx.heads(spread))
    assert values.through_bridge is not None
    whole = mx.load_model(llama_folder)
    masks = sample_masks(8, 5, keep=0.5, seed=0)
    expected = mx.ComponentValues(whole, task, mx.heads(whole))(masks)
    assert np.allclose(values(masks), expected, atol=2e-4)


def test_hooks_that_a_library_offers_are_the_users_own(deep, task):
    """TransformerLens installs hooks itself; those it offers to users are something else."""

    def silence(z, hook):
        return 0 * z

    silence.__module__ = "transformer_lens.patching"
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    kept = np.ones((1, 18), dtype=bool)
    before = values(kept)
    with deep.hooks(fwd_hooks=[("blocks.2.attn.hook_z", silence)]):
        assert np.abs(values(kept) - before).max() > 0.1


def copy_of(values):
    """The model that values are measured on."""
    return values._proved.forwards.groups[0].cached.plain_model.module


def calls_of(values, path):
    """The shapes that a module of the plain model is given from here on."""
    shapes = []
    module = copy_of(values).get_submodule(path)
    module.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    return shapes


def test_blocks_below_the_first_ablated_unit_are_not_run(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    first, fifth = calls_of(values, "transformer.h.0.mlp"), calls_of(values, "transformer.h.4.mlp")
    masks = np.ones((4, 18), dtype=bool)
    masks[[0, 1, 2, 3, 3], [12, 13, 14, 12, 13]] = False
    values(masks)
    assert (first, fifth) == ([], [(12, 5, 24)])
    masks[0, 1] = False
    values(masks)
    # The three others are alike up to the fifth block.
    assert (first, fifth[1:]) == ([(6, 5, 24)], [(12, 5, 24)])


def test_blocks_below_the_first_kept_unit_are_not_run(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    masks = np.zeros((4, 18), dtype=bool)
    masks[[0, 1, 2], [13, 14, 12]] = True
    values(masks)
    # The pass in which all are ablated was run by now.
    first, fifth = calls_of(values, "transformer.h.0.mlp"), calls_of(values, "transformer.h.4.mlp")
    values(masks)
    assert (first, fifth) == ([], [(12, 5, 24)])
    masks[0, 1] = True
    values(masks)
    assert (first, fifth[1:]) == ([(3, 5, 24)], [(3, 5, 24), (9, 5, 24)])


def alike_up_to_the_third_block(n_units, n_masks=8):
    """Masks of units of six blocks, the first two of which are as in one of two masks."""
    masks = sample_masks(n_units, n_masks, keep=0.5, seed=5)
    early = n_units // 3
    masks[:, :early] = masks[np.arange(n_masks) // (n_masks // 2), :early]
    # Some of the first block is kept and some ablated: all begin there.
    masks[:, :2] = [True, False]
    return masks


def test_masks_that_are_alike_up_to_a_block_are_run_as_one_up_to_it(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    masks = alike_up_to_the_third_block(18)
    masks[:, 6:9] = list(np.ndindex(2, 2, 2))
    rows = [calls_of(values, f"transformer.h.{block}.mlp") for block in range(5)]
    values(masks)
    assert [called[0][0] // 3 for called in rows] == [len(set(map(bytes, masks[:, :n])))
                                                      for n in (3, 6, 9, 12, 15)]  # fmt: skip
    assert rows[1][0][0] < rows[2][0][0] == 24


def one_part_after_another(n_units):
    """Masks, each of which differs from the one before in later blocks than that did."""
    masks = np.repeat(sample_masks(n_units, 1, keep=0.5, seed=7), 6, axis=0)
    masks[:, :3] = [True, False, True]
    for number in range(1, 6):
        masks[number:, n_units * number // 6] ^= True
    return masks


def test_in_turn_a_mask_begins_where_it_differs_from_the_one_before(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    masks = one_part_after_another(18)
    apart = [values(mask[None])[0] for mask in masks]
    rows = [calls_of(values, f"transformer.h.{block}.mlp") for block in range(6)]
    with values.in_turn():
        turns = [values(mask[None])[0] for mask in masks]
    assert [len(called) for called in rows] == [1, 2, 3, 4, 5, 6]
    assert np.array_equal(turns, apart)
    # Afterwards a value depends on its masks alone, to the last bit.
    values(masks[5:])
    assert len(rows[0]) == 2


def test_in_turn_the_last_mask_of_several_is_gone_on_from(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    masks = one_part_after_another(18)
    masks[:2, 0] ^= True
    rows = [calls_of(values, f"transformer.h.{block}.mlp") for block in (0, 3, 4)]
    with values.in_turn():
        turns = [values(masks[start : start + 2]) for start in (0, 2, 4)]
    # The second two are run as one until they part; the third two go on from the last of these.
    assert [[n for n, *_ in called] for called in rows] == [[6, 3], [6, 6], [6, 6, 3]]
    assert np.allclose(np.concatenate(turns), plainly(values, masks), atol=2e-4)


def test_in_turn_a_mask_goes_on_from_one_that_ran_as_one_with_others(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    masks = np.repeat(one_part_after_another(18)[:1], 4, axis=0)
    masks[0, 4] ^= True
    for row, column in ((2, 12), (3, 13)):
        masks[row, column] ^= True
    rows = [calls_of(values, f"transformer.h.{block}.mlp") for block in (0, 3, 4)]
    with values.in_turn():
        turns = [values(masks[:3]), values(masks[3:])]
    assert [[n for n, *_ in called] for called in rows] == [[3], [6], [9, 3]]
    assert np.allclose(np.concatenate(turns), plainly(values, masks), atol=2e-4)


def test_a_run_measures_in_turn(deep, task, tmp_path):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    rows = calls_of(values, "transformer.h.0.mlp")
    masks = np.repeat(one_part_after_another(18), 2, axis=0)
    masks[::2, 17] ^= True
    with Run.open(None) as run:
        measured = run.record(values)(masks)
    n_run = len(rows)
    assert np.allclose(measured, plainly(values, masks), atol=2e-4)
    assert n_run == 1 < -(-len(masks) // values.first_batch)


def test_what_was_left_behind_goes_with_the_context(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    (group,) = values._proved.forwards.groups
    masks = one_part_after_another(18)
    with pytest.raises(ShapeError), values.in_turn():  # noqa: PT012
        values(masks[:1])
        assert group.cached.last.found is not None
        values(masks[:1, :3])
    assert group.cached.last.found is None
    with values.in_turn():
        before = values(masks[:1])
        hook = ("blocks.2.hook_resid_pre", lambda r, hook: 2 * r)
        with deep.hooks(fwd_hooks=[hook]):
            assert np.abs(values(masks[:1]) - before).max() > 0.1
        assert np.array_equal(values(masks[:1]), before)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("ablation", ["zero", "mean", "resample", "corrupted"])
@pytest.mark.parametrize("units", UNITS)
def test_masks_in_turn_are_as_in_the_plain_forward(deep, task, units, ablation, rescale):
    values = mx.ComponentValues(deep, task, UNITS[units](deep), ablation, rescale=rescale)
    sparse = sample_masks(values.n_units, 6, keep=0.1, seed=1)
    masks = np.concatenate([sparse, one_part_after_another(values.n_units)])
    masks = masks[as_neighbours(masks)]
    for n_at_once in (1, 3):
        with values.in_turn():
            turns = [values(masks[at : at + n_at_once]) for at in range(0, 12, n_at_once)]
        assert np.allclose(np.concatenate(turns), plainly(values, masks), atol=2e-4)


def test_attention_of_which_nothing_is_kept_is_run_for_one_mask(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    masks = alike_up_to_the_third_block(18)
    masks[:, 6:9] = list(np.ndindex(2, 2, 2))
    masks[:6, 9:12] = False
    masks[6:, 9] = True
    whole, queries = (
        calls_of(values, f"transformer.h.3.{module}") for module in ("mlp", "attn.c_attn")
    )
    projected = calls_of(values, "transformer.h.3.attn.c_proj")
    measured = values(masks)
    assert (whole, queries, projected) == ([(24, 5, 24)], [(9, 5, 24)], [(9, 5, 24)])
    assert np.allclose(measured, plainly(values, masks), atol=2e-4)
    # Of some heads of a block the others are kept by every mask.
    names = values.units.names
    some = mx.ComponentValues(deep, task, values.units[np.delete(names, 10).tolist()])
    early, queries = (
        calls_of(some, f"transformer.h.{module}") for module in ("0.mlp", "3.attn.c_attn")
    )
    fewer = np.delete(masks, 10, axis=1)
    assert np.allclose(some(fewer), plainly(some, fewer), atol=2e-4)
    assert (early[0], queries[0]) == ((3, 5, 24), (24, 5, 24))


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("ablation", ["zero", "mean", "resample", "corrupted"])
@pytest.mark.parametrize("units", ["heads", "neurons", "late heads", "a sum"])
def test_masks_that_part_late_are_as_in_the_plain_forward(deep, task, units, ablation, rescale):
    values = mx.ComponentValues(deep, task, UNITS[units](deep), ablation, rescale=rescale)
    masks = alike_up_to_the_third_block(values.n_units, 12)
    layers = np.array([unit.layer for unit in values.units])
    masks[:7, layers == 4] = False
    assert np.allclose(values(masks), plainly(values, masks), atol=2e-4)


def test_where_blocks_are_given_something_for_each_row_masks_stay_apart(deep, task, monkeypatch):
    masks = alike_up_to_the_third_block(18)
    expected = mx.ComponentValues(deep, task, mx.heads(deep))(masks)
    monkeypatch.setattr(parted_rows, "parts_alike", lambda given: False)
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    rows = calls_of(values, "transformer.h.1.mlp")
    assert np.array_equal(values(masks), expected)
    assert rows == [(24, 5, 24)]
    assert values.through_bridge is None


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("ablation", ["zero", "mean", "resample", "corrupted"])
@pytest.mark.parametrize("units", ["heads", "neurons", "late heads", "a sum"])
def test_masks_that_keep_late_units_alone_are_as_in_the_plain_forward(
    deep, task, units, ablation, rescale
):
    values = mx.ComponentValues(deep, task, UNITS[units](deep), ablation, rescale=rescale)
    layers = np.array([unit.layer for unit in values.units])
    masks = sample_masks(values.n_units, 12, keep=0.5, seed=3)
    for mask, layer in zip(masks, [0, 1, 2, 3, 4, 5] * 2, strict=True):
        mask[layers < layer] = False
    assert np.allclose(values(masks), plainly(values, masks), atol=2e-4)


def test_positions_before_the_first_ablated_one_are_not_run(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep, positions=[1, 4]))
    inner = calls_of(values, "transformer.h.2.mlp")
    values(np.array([[unit.position != 4 for unit in values.units]]))
    values(np.array([[unit.position != 1 for unit in values.units]]))
    assert inner == [(3, 1, 24), (3, 4, 24)]


def test_the_last_mlp_runs_where_it_is_read(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    values(np.zeros((2, 18), dtype=bool))
    inside = calls_of(values, "transformer.h.5.mlp.c_fc")
    values(np.zeros((2, 18), dtype=bool))
    assert inside == [(6, 1, 24)]


def test_hooks_added_later_count_and_go_again(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep), "zero")
    masks = sample_masks(18, 3, seed=0)
    before = values(masks)
    with deep.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", lambda r, hook: 2 * r)]):
        assert np.abs(values(masks) - before).max() > 0.1
    assert np.array_equal(values(masks), before)
    block = deep.original_model.transformer.h[2]
    handle = block.register_forward_hook(lambda _, given, output: 2 * output)
    assert np.abs(values(masks) - before).max() > 0.1
    handle.remove()


def test_the_copy_shares_the_weights_and_leaves_the_model_alone(deep, task):
    wanted = [p.requires_grad for p in deep.original_model.parameters()]
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    copy = copy_of(values)
    own = {p.data_ptr() for p in deep.original_model.parameters()}
    assert {p.data_ptr() for p in copy.parameters()} <= own
    values.value_and_gradient(np.ones((1, 18)))
    assert [p.requires_grad for p in deep.original_model.parameters()] == wanted
    assert all(p.grad is None for p in deep.original_model.parameters())


@pytest.mark.parametrize("through", ["copy", "bridge"])
@pytest.mark.parametrize("units", ["heads", "neurons", "late heads", "a sum"])
def test_gradients_are_those_of_finite_differences(deep, task, units, through):
    values = mx.ComponentValues(deep, task, UNITS[units](deep), "corrupted")
    soft = np.random.default_rng(0).uniform(0.2, 0.8, (2, values.n_units)).astype(np.float32)
    hooks = [("blocks.0.hook_resid_pre", lambda r, hook: r)] if through == "bridge" else []
    with values.model.hooks(fwd_hooks=hooks):
        value, gradient = values.value_and_gradient(soft)
        assert value.shape == (2, 3)
        assert gradient.shape == (2, 3, values.n_units)
        step = 1e-2
        for unit in range(0, values.n_units, max(1, values.n_units // 6)):
            above, below = soft.copy(), soft.copy()
            above[:, unit] += step
            below[:, unit] -= step
            slope = (values.value_and_gradient(above)[0] - values.value_and_gradient(below)[0]) / (
                2 * step
            )
            assert np.allclose(gradient[:, :, unit], slope, atol=5e-3 * np.abs(gradient).max())


def test_gradients_do_not_go_back_through_attention_of_which_nothing_is_kept(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep), "corrupted")
    masks = np.zeros((2, 18), dtype=np.float32)
    masks[0, [7, 15]] = masks[1, [8, 16]] = 1
    reached = set()

    def watch(number):
        def hook(_module, _given, output):
            if output.requires_grad:
                output.register_hook(lambda _: reached.add(number))

        return hook

    attentions = [copy_of(values).get_submodule(f"transformer.h.{n}.attn.c_attn") for n in range(6)]
    handles = [at.register_forward_hook(watch(n)) for n, at in enumerate(attentions)]
    _, gradient = values.value_and_gradient(masks)
    for handle in handles:
        handle.remove()
    assert reached == {2, 5}
    step, slopes = 1e-2, np.empty_like(gradient)
    for unit in range(18):
        above, below = masks.copy(), masks.copy()
        above[:, unit] += step
        below[:, unit] -= step
        up, down = (values.value_and_gradient(moved)[0] for moved in (above, below))
        slopes[:, :, unit] = (up - down) / (2 * step)
    assert np.allclose(gradient, slopes, atol=5e-3 * np.abs(gradient).max())
    assert np.abs(gradient[:, :, [0, 4, 10, 13]]).min() > 0, "also of heads in such attentions"


def test_gradients_do_not_depend_on_the_batch(deep, task):
    """Seven masks together, one by one, and in forwards of two rows; prompts of two lengths."""
    longer = [f"{prompt} tree snow" for prompt in PROMPTS]
    both = mx.Task(PROMPTS + longer, ANSWERS * 2, DISTRACTORS * 2)
    values = mx.ComponentValues(deep, both, mx.heads(deep))
    soft = np.random.default_rng(1).uniform(0, 1, (7, 18)).astype(np.float32)
    together = values.value_and_gradient(soft)
    apart = [values.value_and_gradient(mask[None]) for mask in soft]
    for group in values._proved.forwards.groups:
        group.gradient_size.tokens = 2 * group.plain.tokens.shape[1]
    for found, one_by_one, small in zip(
        together, zip(*apart, strict=True), values.value_and_gradient(soft), strict=True
    ):
        assert np.allclose(found, np.concatenate(one_by_one), atol=2e-4)
        assert np.allclose(found, small, atol=2e-4)


def test_soft_masks_of_zeros_and_ones_are_masks(deep, task):
    values = mx.ComponentValues(deep, task, mx.heads(deep))
    masks = sample_masks(18, 4, keep=0.6, seed=1)
    assert np.allclose(values.value_and_gradient(masks)[0], values(masks), atol=2e-4)
    with pytest.raises(ShapeError, match=r"\[4, 5\], expected \[mask, 18\]"):
        values.value_and_gradient(np.ones((4, 5)))


@pytest.mark.usefixtures("bf16_pays")
def test_bf16_is_measured_beside_the_models_own_dtype(deep, task):
    exact = mx.ComponentValues(deep, task, mx.heads(deep))
    fast = mx.ComponentValues(deep, task, mx.heads(deep), precision="bf16")
    masks = sample_masks(18, 6, keep=0.8, seed=2)
    apart = np.abs(fast(masks) - exact(masks)).max()
    error = fast.precision_error
    assert 0 < apart < 20 * error.largest
    assert error.rms <= error.largest
    assert error.correlation > 0.98
    assert "bf16: error" in str(error)
    assert exact.precision_error is None
    assert np.array_equal(fast.in_own_dtype(masks), exact(masks))
    assert exact.in_own_dtype is exact
    assert fast.configuration["dtype"] == "float32, measured in bf16"
    assert fast.in_own_dtype.configuration == exact.configuration
    assert all(p.dtype == torch.float32 for p in deep.original_model.parameters())


@pytest.mark.usefixtures("bf16_pays")
def test_fp16_is_more_exact_and_refused_where_it_overflows(deep, task, gpt2_folder):
    """Ten bits of a number in place of seven, and nothing beyond 65,504."""
    half, brain = (
        mx.ComponentValues(deep, task, mx.heads(deep), precision=name).precision_error
        for name in ("fp16", "bf16")
    )
    assert 0 < half.rms < brain.rms / 3
    large = mx.load_model(gpt2_folder)
    with torch.no_grad():
        large.original_model.get_parameter("transformer.wte.weight").mul_(1e5)
    with pytest.raises(ModelError, match=r"no finite value in fp16, whose numbers end at 65,504"):
        mx.ComponentValues(large, task, mx.heads(large), precision="fp16")


@pytest.mark.usefixtures("bf16_pays")
def test_precisions_that_cannot_be_had_are_refused(deep, task, tiny, tiny_task):
    with pytest.raises(ModelError, match="'int3' is unknown; choose bf16, fp16, auto"):
        mx.ComponentValues(deep, task, mx.heads(deep), precision="int3")
    with pytest.raises(ModelError, match="tiny cannot be measured in bf16"):
        mx.ComponentValues(tiny, tiny_task, mx.heads(tiny), precision="bf16")


def test_a_precision_that_is_slower_here_is_refused_with_both_rates(deep, task, monkeypatch):
    rates = {torch.float32: 108.0, torch.bfloat16: 2.0, torch.float16: 3.0}
    monkeypatch.setattr(precision, "_rate", lambda device, dtype: rates[dtype])
    heads = mx.heads(deep)
    with pytest.raises(ModelError, match=r"not pay on this \w+: 2 GFLOP/s, in float32 108; .*auto"):
        mx.ComponentValues(deep, task, heads, precision="bf16")
    with pytest.raises(ModelError, match="'bf16' is the model's own dtype; leave precision out"):
        precision.check_that_it_pays("bf16", torch.bfloat16, torch.device("cpu"))
    assert mx.ComponentValues(deep, task, heads, precision="auto").precision is None
    rates[torch.bfloat16] = 500.0
    chosen = mx.ComponentValues(deep, task, heads, precision="auto")
    assert chosen.precision == "bf16"
    named = mx.ComponentValues(deep, task, heads, precision="bf16")
    assert chosen.configuration == named.configuration


@pytest.mark.usefixtures("bf16_pays")
def test_auto_is_the_models_own_dtype_where_there_is_no_other(tiny, tiny_task):
    assert mx.ComponentValues(tiny, tiny_task, mx.heads(tiny), precision="auto").precision is None


def test_rates_are_measured():
    assert product_rate("cpu", torch.float32) > 0.1


def test_rescaled_heads_are_multiplied_by_those_of_the_layer_over_those_kept(deep, task):
    """Two of three heads kept: as if a hook of the user's made them half as large again."""
    heads = mx.heads(deep, layers=[3])
    rescaled = mx.ComponentValues(deep, task, heads, "zero", rescale=True)
    plain = mx.ComponentValues(deep, task, heads, "zero")
    mask = np.array([[True, False, True]])
    with deep.hooks(fwd_hooks=[("blocks.3.attn.hook_z", lambda z, hook: 1.5 * z)]):
        expected = plain(mask)
    assert np.allclose(rescaled(mask), expected, atol=2e-4)
    ends = np.array([[True] * 3, [False] * 3])
    assert np.allclose(rescaled(ends), plain(ends), atol=2e-4)
    assert rescaled.configuration != plain.configuration


def test_encoders_are_read_at_their_mask_token(tmp_path, tiny):
    """Heads of BERT with a metric of the user's, against its own forward."""
    config = BertConfig(
        vocab_size=206, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=40, max_position_embeddings=32,
    )  # fmt: skip
    model = mx.load_model(save_random(BertForMaskedLM, config, tmp_path))
    model.tokenizer.mask_token = model.tokenizer.convert_ids_to_tokens(7)

    def gap(logits, prompts):
        return logits[:, 20] - logits[:, 30]

    prompts = ["bird art boat", "moon lake art", "wood art door"]
    task = mx.Task(prompts, ANSWERS, metric=gap)
    values = mx.ComponentValues(model, task, mx.heads(model), "zero")
    tokens = torch.tensor([encode(model.tokenizer, p, None) for p in prompts])
    with torch.inference_mode():
        logits = BertForMaskedLM.from_pretrained(tmp_path).eval()(tokens).logits
    rows = logits[torch.arange(3), (tokens == 7).int().argmax(1)]
    clean, ablated = values(np.array([[True] * 8, [False] * 8]))
    assert np.allclose(clean, gap(rows, None), atol=2e-4)
    assert np.abs(clean - ablated).max() > 0.01
    twice = mx.Task(["art bird art boat art"], ANSWERS[:1], metric=gap)
    with pytest.raises(TaskError, match="one mask token"):
        mx.ComponentValues(model, twice, mx.heads(model), "zero")


def test_a_device_that_computes_something_else_is_told(deep, task, monkeypatch):
    monkeypatch.setattr(proof, "_UNTRUSTED", ("cpu", "cuda"))
    mx.ComponentValues(deep, task, mx.heads(deep))
    monkeypatch.setattr(proof, "edited_logits", lambda *given: 2 * edited_logits(*given))
    with pytest.warns(UserWarning, match="differ by .* from those on the CPU"):
        mx.ComponentValues(deep, task, mx.heads(deep))
