"""The value function of components, against hand-made models and independent oracles."""

import functools
import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import ANSWERS, CORRUPTED, DISTRACTORS, PROMPTS, device_of
from transformer_lens.model_bridge.sources import boot_native
from value_function_laws import check_laws

import mechspex as mx
from mechspex.components.references import record
from mechspex.core.masks import all_masks, sample_masks
from mechspex.errors import (
    AblationError,
    MeasurementError,
    ModelError,
    ShapeError,
    TaskError,
    UnknownUnitError,
)
from mechspex.forward import plain_model
from mechspex.models import weights
from mechspex.runs.recorded import RecordedValues
from mechspex.tasks.metric_names import METRICS
from mechspex.tasks.tokens import first_tokens, tokenize


@pytest.fixture(scope="module")
def task():
    return mx.Task(PROMPTS, ANSWERS, DISTRACTORS, CORRUPTED)


def untouched(model, task):
    """Values of the plain forward of the bridge, without a hook of ours."""
    tokens = tokenize(task, model.tokenizer)
    assert tokens.distractors is not None
    answers, distractors = first_tokens(tokens.answers), first_tokens(tokens.distractors)
    rows = []
    with torch.inference_mode():
        for j, prompt in enumerate(tokens.prompts):
            logits = model(prompt[None].to(device_of(model)), return_type="logits")[0, -1].cpu()
            rows.append(logits[answers[j]] - logits[distractors[j]])
    return torch.stack(rows).numpy()


UNITS = {
    "heads": mx.heads,
    "neurons": mx.neurons,
    "mlps": mx.mlps,
    "heads + mlps": lambda model: mx.heads(model) + mx.mlps(model),
    "heads at positions": lambda model: mx.heads(model, positions=[0, 2]) + mx.neurons(model),
}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("units", "ablation"),
    [(units, "mean") for units in UNITS]
    + [("heads at positions", ablation) for ablation in ("zero", "resample", "corrupted")],
)
def test_laws(architecture, ablation, units, task, request, device):
    model = request.getfixturevalue(architecture)
    values = mx.ComponentValues(model, task, UNITS[units](model), ablation)
    check_laws(values, untouched(model, task))


def test_laws_hold_for_the_tiny_model(tiny, tiny_task):
    values = mx.ComponentValues(tiny, tiny_task, mx.heads(tiny))
    check_laws(values, untouched(tiny, tiny_task))


def test_laws_hold_with_a_store_between(tmp_path, tiny, tiny_task):
    values = mx.ComponentValues(tiny, tiny_task, mx.heads(tiny))
    untouched = values(np.ones((1, 8), dtype=bool))[0]
    check_laws(RecordedValues(values, tmp_path), untouched)


def raw_projections(model):
    """The Hugging Face modules that read heads and neurons, with no TransformerLens in between."""
    if model.cfg.architecture == "GPT2LMHeadModel":
        return [(b.attn.c_proj, b.mlp.c_proj) for b in model.transformer.h]
    return [(b.self_attn.o_proj, b.mlp.down_proj) for b in model.model.layers]


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "LlamaForCausalLM"])
@pytest.mark.parametrize("kind", ["heads", "neurons"])
@pytest.mark.parametrize("ablation", ["zero", "mean", "corrupted"])
def test_values_are_those_of_the_raw_hugging_face_model(
    architecture, kind, ablation, task, gpt2_folder, llama_folder, device
):
    """One mask and one prompt at a time, hooks on the input of the projections."""
    import transformers

    folder = gpt2_folder if architecture == "GPT2LMHeadModel" else llama_folder
    raw = getattr(transformers, architecture).from_pretrained(folder).eval().to(device)
    raw.cfg = type("Named", (), {"architecture": architecture})
    bridge = mx.load_model(folder, device=device)
    values = mx.ComponentValues(bridge, task, UNITS[kind](bridge), ablation)
    masks = sample_masks(values.n_units, 5, keep=0.5, seed=2)
    alone, together = np.concatenate([values(mask[None]) for mask in masks]), values(masks)
    tokens = tokenize(task, bridge.tokenizer)
    place = 0 if kind == "heads" else 1
    width = bridge.cfg.d_head if kind == "heads" else 1
    modules = [pair[place] for pair in raw_projections(raw)]

    def inputs(ids):
        seen = []
        handles = [m.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for m in modules]
        raw(ids)
        for handle in handles:
            handle.remove()
        return seen

    with torch.inference_mode():
        prompts, paired = (
            [ids[None].to(device) for ids in rows] for rows in (tokens.prompts, tokens.corrupted)
        )
        clean, corrupted = ([inputs(ids) for ids in rows] for rows in (prompts, paired))
        for row, mask in enumerate(masks):
            by_layer = mask.reshape(len(modules), -1).repeat(width, axis=1)
            for j, prompt in enumerate(prompts):
                handles = []
                for layer, module in enumerate(modules):
                    reference = {
                        "zero": torch.zeros_like(clean[j][layer]),
                        "mean": sum(c[layer] for c in clean) / len(clean),
                        "corrupted": corrupted[j][layer],
                    }[ablation]
                    keep = torch.from_numpy(by_layer[layer]).to(device)
                    handles.append(
                        module.register_forward_pre_hook(
                            lambda _, x, k=keep, r=reference: (torch.where(k, x[0], r),)
                        )
                    )
                logits = raw(prompt).logits[0, -1]
                for handle in handles:
                    handle.remove()
                expected = logits[tokens.answers[j]] - logits[tokens.distractors[j]]
                assert alone[row, j] == pytest.approx(expected.item(), abs=2e-4)
                assert together[row, j] == pytest.approx(expected.item(), abs=2e-4)


def test_a_micro_model_worked_by_hand(tiny):
    """One layer, no norms, query and key zero: attention is uniform, so every head adds the mean
    of the embeddings through its value and output matrices, and zero ablation takes it away."""
    config = {
        "n_layers": 1, "n_heads": 2, "d_model": 4, "d_head": 2, "n_ctx": 16, "d_vocab": 206,
        "attn_only": True, "normalization_type": None, "positional_embedding_type": "rotary",
        "seed": 0,
    }  # fmt: skip
    model = boot_native(config, tokenizer=tiny.tokenizer, model_name="micro").eval()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    for name in weights:
        if ".attn.q." in name or ".attn.k." in name or name.endswith("bias"):
            weights[name].zero_()
    model.load_state_dict(weights, strict=True)
    task = mx.Task(PROMPTS[:2], ANSWERS[:2], DISTRACTORS[:2])
    measured = mx.ComponentValues(model, task, mx.heads(model), "zero")(all_masks(2))

    by_end = {k.removeprefix("blocks.0.attn."): v.numpy() for k, v in weights.items()}
    embed, unembed = by_end["embed.weight"], by_end["unembed.weight"]
    tokens = tokenize(task, tiny.tokenizer)
    for j, prompt in enumerate(tokens.prompts):
        x = embed[prompt.numpy()]
        z = (x @ by_end["v.weight"].T).mean(0).reshape(2, 2)
        for row, (first, second) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
            kept = np.concatenate([first * z[0], second * z[1]])
            logits = unembed @ (x[-1] + by_end["o.weight"] @ kept)
            expected = logits[tokens.answers[j]] - logits[tokens.distractors[j]]
            assert measured[row, j] == pytest.approx(expected, abs=1e-5)


def test_ablating_all_neurons_at_their_mean_is_ablating_the_mlp_at_its_mean(gpt2, task):
    neurons = mx.ComponentValues(gpt2, task, mx.neurons(gpt2))
    mlps = mx.ComponentValues(gpt2, task, mx.mlps(gpt2))
    layers = np.array([[False, True], [True, False]])
    assert np.allclose(neurons(layers.repeat(40, axis=1)), mlps(layers), atol=2e-4)


def test_positions_together_are_the_unit_everywhere(gpt2, task):
    length = len(tokenize(task, gpt2.tokenizer).prompts[0])
    everywhere = mx.ComponentValues(gpt2, task, mx.heads(gpt2))
    placed = mx.ComponentValues(gpt2, task, mx.heads(gpt2, positions=range(length)))
    masks = sample_masks(6, 4, seed=1)
    assert np.allclose(placed(masks.repeat(length, axis=1)), everywhere(masks), atol=2e-4)


@pytest.mark.parametrize("ablation", ["resample", "zero"])
def test_positions_from_the_end_are_each_prompts_own(gpt2, task, ablation):
    """To the last bit the values of the positions counted from the start, length by length."""
    longer = mx.Task([f"{prompt} tree" for prompt in PROMPTS], ANSWERS, DISTRACTORS)
    both = mx.Task([*task.prompts, *longer.prompts], ANSWERS * 2, DISTRACTORS * 2)
    masks = sample_masks(12, 6, keep=0.5, seed=1)
    values = mx.ComponentValues(gpt2, both, mx.heads(gpt2, positions=[-1, -3]), ablation)
    assert values.units.names[:2] == ("L0H0@-1", "L0H0@-3")
    measured = values(masks)
    for part, prompts in ((task, slice(0, 3)), (longer, slice(3, 6))):
        length = len(tokenize(part, gpt2.tokenizer).prompts[0])
        placed = mx.heads(gpt2, positions=[length - 1, length - 3])
        expected = mx.ComponentValues(gpt2, part, placed, ablation)(masks)
        assert np.abs(measured[:, prompts] - expected).max() < 1e-5
        assert np.ptp(expected, axis=0).min() > 1e-3


def test_one_position_under_two_names_is_refused(gpt2, task):
    length = len(tokenize(task, gpt2.tokenizer).prompts[0])
    with pytest.raises(AblationError, match=f"stands twice at position {length - 1}"):
        mx.ComponentValues(gpt2, task, mx.heads(gpt2, positions=[-1, length - 1]))
    with pytest.raises(UnknownUnitError, match=f"no position -{length + 1} in a prompt"):
        mx.ComponentValues(gpt2, task, mx.heads(gpt2, positions=[-length - 1]))


def test_resampled_references_come_from_other_prompts_and_from_the_seed(gpt2, task):
    def fully_ablated(seed):
        values = mx.ComponentValues(gpt2, task, mx.heads(gpt2), "resample", seed=seed)
        return values(np.zeros((1, 6), dtype=bool))[0]

    assert np.array_equal(fully_ablated(0), fully_ablated(0))
    # Three prompts can be exchanged in two cycles, in neither of which one keeps its place.
    assert len({fully_ablated(seed).tobytes() for seed in range(8)}) == 2
    assert all((fully_ablated(seed) != untouched(gpt2, task)).all() for seed in range(2))


def test_prompts_of_several_lengths_equal_those_measured_apart(gpt2):
    long = [f"{prompt} tree snow" for prompt in PROMPTS]
    mixed = mx.Task(
        [PROMPTS[0], long[0], PROMPTS[1], long[1]],
        [ANSWERS[0], ANSWERS[0], ANSWERS[1], ANSWERS[1]],
        [DISTRACTORS[0], DISTRACTORS[0], DISTRACTORS[1], DISTRACTORS[1]],
    )
    masks = sample_masks(6, 5, seed=0)
    for ablation in ("zero", "resample"):
        values = mx.ComponentValues(gpt2, mixed, mx.heads(gpt2), ablation)(masks)
        for columns, prompts in (([0, 2], PROMPTS[:2]), ([1, 3], long[:2])):
            apart = mx.Task(prompts, ANSWERS[:2], DISTRACTORS[:2])
            alone = mx.ComponentValues(gpt2, apart, mx.heads(gpt2), ablation)(masks)
            assert np.allclose(values[:, columns], alone, atol=2e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_against_their_definitions(metric, gpt2, task):
    values = mx.ComponentValues(gpt2, replace(task, metric=metric), mx.heads(gpt2), "zero")
    with torch.inference_mode():
        tokens = tokenize(task, gpt2.tokenizer)
        assert tokens.distractors is not None
        prompts = [prompt[None].to(device_of(gpt2)) for prompt in tokens.prompts]
        clean = torch.stack([gpt2(ids, return_type="logits")[0, -1].cpu() for ids in prompts])
    answers, distractors = first_tokens(tokens.answers), first_tokens(tokens.distractors)
    expected = {
        "logit_difference": untouched(gpt2, task),
        "answer_probability": [clean[j].softmax(0)[a].item() for j, a in enumerate(answers)],
        "answer_log_probability": [
            clean[j].log_softmax(0)[a].item() for j, a in enumerate(answers)
        ],
        "probability_difference": [
            (clean[j].softmax(0)[a] - clean[j].softmax(0)[d]).item()
            for j, (a, d) in enumerate(zip(answers, distractors, strict=True))
        ],
        "kl_divergence": np.zeros(3),
    }[metric]
    assert np.allclose(values(np.ones((1, 6), dtype=bool))[0], expected, atol=1e-4)
    if metric == "kl_divergence":
        assert (values(np.zeros((1, 6), dtype=bool)) > 0).all()


def test_several_answers_a_prompt_under_masks(gpt2):
    """Every mask, by hooks of one's own, on prompts with sets of different sizes."""
    answers = [[" bird", " tree", " moon"], " lake", [" wall", " key"]]
    distractors = [" boat", [" key", " tree"], " door"]
    several = mx.Task(PROMPTS, answers, distractors, metric="probability_difference")
    values = mx.ComponentValues(gpt2, several, mx.heads(gpt2), "zero")
    masks = sample_masks(6, 4, seed=0)
    known = {text: gpt2.tokenizer.convert_tokens_to_ids("Ġ" + text.strip())
             for texts in (*answers, *distractors)
             for text in ([texts] if isinstance(texts, str) else texts)}  # fmt: skip

    def total(p, texts):
        return p[[known[text] for text in ([texts] if isinstance(texts, str) else texts)]].sum()

    for mask, measured in zip(masks, values(masks), strict=True):
        by_layer = torch.from_numpy(mask).reshape(2, 3).to(device_of(gpt2))
        hooks = [
            (f"blocks.{k}.attn.hook_z", lambda z, hook, keep=by_layer[k]: z * keep[:, None])
            for k in range(2)
        ]
        for j, prompt in enumerate(tokenize(several, gpt2.tokenizer).prompts):
            with torch.inference_mode():
                ids = prompt[None].to(device_of(gpt2))
                p = gpt2.run_with_hooks(ids, fwd_hooks=hooks)[0, -1].softmax(0)
            expected = total(p, answers[j]) - total(p, distractors[j])
            assert measured[j] == pytest.approx(expected.item(), abs=1e-5)
    whole = np.ones((1, 6), dtype=bool)
    odds = mx.ComponentValues(gpt2, replace(several, metric="logit_difference"), values.units)(
        whole
    )
    for j, prompt in enumerate(tokenize(several, gpt2.tokenizer).prompts):
        p = gpt2(prompt[None].to(device_of(gpt2)), return_type="logits")[0, -1].softmax(0)
        expected = (total(p, answers[j]).log() - total(p, distractors[j]).log()).item()
        assert odds[0, j] == pytest.approx(expected, abs=1e-4)


def test_a_metric_of_the_users_own(gpt2, task):
    def entropy(logits, prompts):
        return torch.distributions.Categorical(logits=logits).entropy() + 0 * prompts

    values = mx.ComponentValues(gpt2, replace(task, metric=entropy), mx.heads(gpt2))
    assert (values(np.ones((1, 6), dtype=bool)) > 0).all()
    assert "entropy" in values.configuration["metric"]


def test_a_metric_of_the_wrong_shape_is_refused(gpt2, task):
    def column(logits, prompts):
        return logits[:, :1]

    with pytest.raises(ShapeError, match=r"returned shape \[3, 1\] for 3 rows"):
        mx.ComponentValues(gpt2, replace(task, metric=column), mx.heads(gpt2))


def test_metrics_without_a_name_of_their_own_are_named_by_their_class(gpt2, task):
    def difference(logits, prompts, *, scale):
        return scale * (logits[:, 5] - logits[:, 6])

    metric = functools.partial(difference, scale=2.0)
    values = mx.ComponentValues(gpt2, replace(task, metric=metric), mx.heads(gpt2))
    assert values.configuration["metric"].startswith("functools.partial ")


def test_references_of_the_users_own(gpt2, task):
    hooks = [f"blocks.{layer}.attn.hook_z" for layer in range(2)]
    zeros = {hook: torch.zeros(1, 1, 3, 8, device=device_of(gpt2)) for hook in hooks}
    own = mx.ComponentValues(gpt2, task, mx.heads(gpt2), zeros)
    masks = sample_masks(6, 4, seed=0)
    assert np.array_equal(own(masks), mx.ComponentValues(gpt2, task, mx.heads(gpt2), "zero")(masks))
    with pytest.raises(ShapeError, match=r"shape \[1, 1, 8\], expected \[3, 5, 3, 8\]"):
        mx.ComponentValues(gpt2, task, mx.heads(gpt2), {**zeros, hooks[1]: torch.zeros(1, 1, 8)})
    with pytest.raises(AblationError, match=r"nothing for 'blocks.1.attn.hook_z'"):
        mx.ComponentValues(gpt2, task, mx.heads(gpt2), {hooks[0]: zeros[hooks[0]]})


def test_torch_masks_are_welcome(gpt2, task):
    values = mx.ComponentValues(gpt2, task, mx.heads(gpt2))
    masks = sample_masks(6, 3, seed=0)
    assert np.array_equal(values(torch.from_numpy(masks)), values(masks))
    with pytest.raises(ShapeError, match=r"\[3, 6\].*dtype int64"):
        values(masks.astype(int))
    with pytest.raises(ShapeError, match=r"\[3, 5\], expected \[mask, 6\]"):
        values(masks[:, :5])


def hook_counts(model):
    return {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}


def test_the_model_is_left_as_it_was_also_after_an_exception(gpt2, task):
    before, counts = untouched(gpt2, task), hook_counts(gpt2)
    metric = broken_from(n_proving_calls(gpt2, task) + 1, ArithmeticError("mid-sweep"))
    values = mx.ComponentValues(gpt2, replace(task, metric=metric), mx.heads(gpt2))
    one = sample_masks(6, 1, seed=0)
    values(one)
    with pytest.raises(ArithmeticError, match="mid-sweep"):
        values(one)
    assert hook_counts(gpt2) == counts
    assert np.array_equal(untouched(gpt2, task), before)
    assert not gpt2.original_model.training
    assert all(parameter.grad is None for parameter in gpt2.original_model.parameters())


def test_the_users_hooks_stay_and_count(gpt2, task):
    def double(z, hook):
        return 2 * z

    with gpt2.hooks(fwd_hooks=[("blocks.0.attn.hook_z", double)]):
        with pytest.warns(UserWarning, match="hooks of its own"):
            values = mx.ComponentValues(gpt2, task, mx.heads(gpt2), "zero")
        doubled = values(np.ones((1, 6), dtype=bool))[0]
        assert np.allclose(doubled, untouched(gpt2, task), atol=2e-4)
        assert hook_counts(gpt2)["blocks.0.attn.hook_z"] == 1
    assert not np.allclose(doubled, untouched(gpt2, task), atol=1e-2)


def test_a_model_in_train_mode_is_refused(gpt2_folder, task):
    model = mx.load_model(gpt2_folder)
    model.train()
    with pytest.raises(ModelError, match="train mode"):
        mx.ComponentValues(model, task, mx.heads(model))


def test_units_that_the_model_lacks_are_refused(gpt2, task):
    for units, complaint in [
        (mx.UnitSet((mx.Unit("head", 7, 0),)), "blocks.7.attn.hook_z"),
        (mx.UnitSet((mx.Unit("head", 1, 3),)), "no head 3; it has 0 … 2"),
        (mx.UnitSet((mx.Unit("neuron", 1, 40),)), "no neuron 40; it has 0 … 39"),
        (mx.UnitSet((mx.Unit("head", 1, 0, 5),)), "no position 5 in a prompt of 5 tokens"),
        (mx.parts(["word"]), "'word' is not a head"),
        (mx.UnitSet(), "no units"),
    ]:
        with pytest.raises((AblationError, UnknownUnitError), match=complaint):
            mx.ComponentValues(gpt2, task, units)


def test_a_hook_point_that_never_fires_is_refused(gpt2, task):
    tokens = torch.stack(tokenize(task, gpt2.tokenizer).prompts).to(device_of(gpt2))
    hooks = ["blocks.0.attn.hook_z", "blocks.1.attn.qkv.hook_in"]
    with pytest.raises(AblationError, match="'blocks.1.attn.qkv.hook_in.*never fires.*1 of 2"):
        record(gpt2, hooks, tokens)


def test_an_ablation_that_cannot_change_the_output_is_refused(gpt2, task):
    # At the last layer only the last position is read, so the first one is without effect.
    with pytest.raises(AblationError, match="changes no value"):
        mx.ComponentValues(gpt2, task, mx.heads(gpt2, layers=[1], positions=[0]))


def test_ablations_that_cannot_be_carried_out_are_refused(gpt2, task):
    heads = mx.heads(gpt2)
    single = mx.Task(PROMPTS[:1], ANSWERS[:1], DISTRACTORS[:1])
    for ablation in ("mean", "resample"):
        with pytest.raises(AblationError, match="single prompt"):
            mx.ComponentValues(gpt2, single, heads, ablation)
    with pytest.raises(AblationError, match="needs corrupted prompts"):
        mx.ComponentValues(gpt2, single, heads, "corrupted")
    with pytest.raises(AblationError, match="'median' is unknown; choose zero, mean"):
        mx.ComponentValues(gpt2, task, heads, "median")


def test_a_clean_value_that_is_not_finite_stops_before_the_sweep(gpt2, task):
    def nan(logits, prompts):
        return torch.where(prompts == 1, torch.nan, logits[:, 0])

    with pytest.raises(MeasurementError, match=r"prompt 1 is nan: 'moon lake key moon'"):
        mx.ComponentValues(gpt2, replace(task, metric=nan), mx.heads(gpt2))


def out_of_memory_above(limit, error):
    """A metric that runs out of memory for more than `limit` rows."""

    def metric(logits, prompts):
        if len(prompts) > limit:
            raise error
        return logits[:, 5] - logits[:, 6]

    return metric


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 1 bytes")],
)
def test_out_of_memory_halves_the_batch_and_keeps_the_values(gpt2, task, caplog, error):
    masks = sample_masks(6, 64, seed=0)
    plenty = replace(task, metric=out_of_memory_above(10**9, error))
    scarce = replace(task, metric=out_of_memory_above(30, error))
    expected = mx.ComponentValues(gpt2, plenty, mx.heads(gpt2))(masks)
    with caplog.at_level(logging.WARNING):
        values = mx.ComponentValues(gpt2, scarce, mx.heads(gpt2))
        assert np.allclose(values(masks), expected, atol=2e-4)
        logged = len(caplog.records)
        values(masks)
    assert 0 < logged == len(caplog.records), "a smaller batch is found once"


def broken_from(call, error):
    """A metric that fails from one of its calls on: after the value function has been proved."""
    calls = itertools.count()

    def metric(logits, prompts):
        if next(calls) >= call:
            raise error
        return logits[:, 5] - logits[:, 6]

    return metric


def n_proving_calls(model, task):
    calls = []
    metric = broken_from(10**9, None)
    counted = replace(task, metric=lambda *given: calls.append(1) or metric(*given))
    mx.ComponentValues(model, counted, mx.heads(model))
    return len(calls)


def test_out_of_memory_with_one_row_is_an_error_with_the_sizes(gpt2, task):
    metric = broken_from(n_proving_calls(gpt2, task), MemoryError())
    values = mx.ComponentValues(gpt2, replace(task, metric=metric), mx.heads(gpt2))
    with pytest.raises(MeasurementError, match="one row of 5 tokens"):
        values(sample_masks(6, 4, seed=0))


def test_other_runtime_errors_pass_through(gpt2, task):
    metric = broken_from(n_proving_calls(gpt2, task), RuntimeError("shapes do not match"))
    values = mx.ComponentValues(gpt2, replace(task, metric=metric), mx.heads(gpt2))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        values(sample_masks(6, 4, seed=0))


def test_the_configuration_tells_apart_what_changes_values(gpt2, llama, task):
    def configuration(model=gpt2, task=task, units=mx.heads, ablation="mean", seed=0):
        return mx.ComponentValues(model, task, units(model), ablation, seed=seed).configuration

    same = configuration()
    assert configuration() == same
    assert configuration(seed=1) == same
    others = [
        configuration(model=llama),
        configuration(task=replace(task, answers=ANSWERS[::-1], prompts=PROMPTS[::-1])),
        configuration(task=replace(task, metric="answer_probability")),
        configuration(units=mx.neurons),
        configuration(ablation="zero"),
        configuration(ablation="resample"),
        configuration(ablation="resample", seed=1),
        configuration(ablation="corrupted"),
        configuration(
            ablation="corrupted", task=replace(task, corrupted=CORRUPTED[1:] + PROMPTS[:1])
        ),
    ]
    assert len({str(c) for c in [same, *others]}) == len(others) + 1


def test_answers_that_are_not_one_token_are_refused(gpt2):
    with pytest.raises(TaskError, match="'volcano' does not continue|not in this model"):
        mx.ComponentValues(
            gpt2, mx.Task(PROMPTS[:2], [" volcano", " lake"], DISTRACTORS[:2]), mx.heads(gpt2)
        )


def test_no_warning_in_the_ordinary_case(gpt2, task, recwarn):
    mx.ComponentValues(gpt2, task, mx.heads(gpt2))(sample_masks(6, 4))
    assert not recwarn.list


@pytest.mark.parametrize("ablation", ["mean", "resample"])
def test_on_other_prompts_it_has_the_values_of_a_new_one(gpt2, task, ablation, monkeypatch):
    """To the last bit; prompts of another length, of which one position is a unit of its own."""
    longer = [f"{prompt} tree snow" for prompt in PROMPTS]
    other = mx.Task(longer[::-1], ANSWERS[::-1], DISTRACTORS[::-1])
    units = mx.heads(gpt2, layers=[0]) + mx.heads(gpt2, layers=[1], positions=[3, 4])
    new = mx.ComponentValues(gpt2, other, units, ablation, seed=3)
    first = mx.ComponentValues(gpt2, task, units, ablation, seed=3)
    hashed = []
    monkeypatch.setattr(weights, "_hash", lambda model: hashed.append(model) or "abc")
    monkeypatch.setattr(plain_model, "rebuild", None)
    there = first.on(other)
    masks = sample_masks(len(units), 8, keep=0.6, seed=0)
    assert np.array_equal(there(masks), new(masks))
    assert there.outputs == new.outputs
    assert there.configuration == new.configuration
    assert np.array_equal(there.on(task)(masks), first(masks))
    soft = masks.astype(np.float32) / 2
    for here, anew in zip(
        there.value_and_gradient(soft), new.value_and_gradient(soft), strict=True
    ):
        assert np.array_equal(here, anew)
    assert len(hashed) <= 1


def test_on_other_prompts_everything_that_rests_on_them_is_proved_again(gpt2, task):
    heads = mx.heads(gpt2, positions=[4])
    values = mx.ComponentValues(gpt2, task, heads)
    with pytest.raises(UnknownUnitError, match="no position 4 in a prompt of 4 tokens"):
        values.on(mx.Task(["apple bird boat", "moon lake key"], ANSWERS[:2], DISTRACTORS[:2]))
    with pytest.raises(AblationError, match="single prompt"):
        values.on(task[:1])
    with pytest.warns(UserWarning, match="the mean over 2 prompts takes away 50%"):
        short = values.on(task[1:])
    assert short(np.ones((1, len(heads)), dtype=bool)).shape == (1, 2)


@pytest.mark.usefixtures("bf16_pays")
def test_on_follows_weights_that_have_changed(gpt2_folder, task):
    model = mx.load_model(gpt2_folder)
    values = mx.ComponentValues(model, task, mx.heads(model), precision="bf16")
    before = values.configuration["model"]
    with torch.no_grad():
        next(iter(model.original_model.parameters())).mul_(1.1)
    masks = sample_masks(6, 4, seed=0)
    new = mx.ComponentValues(model, task, mx.heads(model), precision="bf16")
    there = values.on(task)
    assert there.configuration == new.configuration
    assert there.configuration["model"] != before
    assert np.array_equal(there(masks), new(masks))
