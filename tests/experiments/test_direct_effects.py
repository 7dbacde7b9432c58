"""Direct effects: parts add up to the quantity, and paths are patched as if by hand."""

import numpy as np
import pytest
import torch
from small_models import ANSWERS, DISTRACTORS, PROMPTS, save_gpt2

import mechspex as mx
from mechspex.core.units import Unit
from mechspex.experiments import ioi_heads
from mechspex.experiments.direct_effects import of_task
from mechspex.experiments.self_repair import _heads, _layers, _parts, _Repairs, _slope
from mechspex.models.bridge import edited_logits

TASK = mx.Task(PROMPTS, ANSWERS, DISTRACTORS, name="words")


@pytest.fixture(scope="module", params=["tiny", "gpt2"])
def model(request, tmp_path_factory):
    """One measured through its bridge, with layer norm and no MLP; one without it, with MLPs."""
    if request.param == "tiny":
        return mx.load_model("tiny")
    return mx.load_model(save_gpt2(tmp_path_factory.mktemp("gpt2") / "model", 3))


@pytest.fixture(scope="module")
def effects(model):
    return of_task(model, TASK)


def heads_of(model):
    return [Unit("head", n, h) for n in range(model.cfg.n_layers) for h in range(model.cfg.n_heads)]


def test_total_effects_are_those_of_component_values(model, effects):
    units = heads_of(model)
    values = mx.ComponentValues(model, TASK, "heads", "mean")
    masks = np.concatenate([np.ones((1, len(units)), bool), ~np.eye(len(units), dtype=bool)])
    said = effects.without([[], *([unit] for unit in units)], effects.mean())
    np.testing.assert_allclose(said.value[:, :, 0].numpy(), values(masks), atol=2e-4)


@pytest.mark.parametrize("gone", [(), (Unit("head", 0, 1),)])
def test_path_patching_is_what_frozen_heads_give_by_hand(model, effects, gone):
    """All heads at their activations, clean or where one is gone, but one at its mean: through the
    bridge's own hooks."""
    mean = effects.mean()
    clean = effects.activations(gone, mean) if gone else effects.clean
    tokens = torch.tensor([model.tokenizer(text)["input_ids"] for text in PROMPTS])
    answers, distractors = (
        torch.tensor([model.tokenizer(text)["input_ids"][-1] for text in texts])
        for texts in (ANSWERS, DISTRACTORS)
    )
    units = heads_of(model)
    # One call a head, so that each begins at its own layer.
    found = [effects.without([[unit]], mean, frozen=clean).value[0, :, 0] for unit in units]
    for unit, value in zip(units, found, strict=True):
        edits = {}
        for layer in range(model.cfg.n_layers):
            hook = f"blocks.{layer}.attn.hook_z"
            z = clean[hook].clone()
            if layer == unit.layer:
                z[:, :, unit.number] = mean[hook][:, :, unit.number]
            edits[hook] = lambda _, z=z: z
        with torch.inference_mode():
            logits = edited_logits(model, tokens, edits)[:, -1]
        by_hand = logits.gather(1, answers[:, None]) - logits.gather(1, distractors[:, None])
        torch.testing.assert_close(value, by_hand[:, 0], atol=2e-4, rtol=1e-4)


def test_what_parts_say_adds_up_to_the_change_with_the_norm_frozen(model, effects):
    """Δ logit = −direct + heads + MLPs + norm, and without a change of scale the norm is nothing:
    a reference that is the clean activation itself changes nothing at all."""
    units = [[Unit("head", 0, n)] for n in range(model.cfg.n_heads)]
    clean = effects.without([[]], effects.mean())
    same = _parts(clean, effects.without(units, effects.clean), 0)
    assert all(np.abs(part).max() < 1e-4 for part in same.values())
    run = effects.without(units, effects.mean())
    parts = _parts(clean, run, 0)
    change = (run.value - clean.value).numpy()
    total = -parts["direct"] + parts["heads"] + parts["MLPs"] + parts["norm"]
    np.testing.assert_allclose(total, change, atol=1e-4)
    # By hand: the residual stream of the ablated run, read with the clean norm.
    after = effects.activations(units[1], effects.mean())["ln_final.hook_in"][:, -1:]
    before = effects.clean["ln_final.hook_in"][:, -1:]
    frozen = ((after - before) * effects._read).sum(-1).numpy()
    np.testing.assert_allclose(change[1] - parts["norm"][1], frozen, atol=1e-4)


def test_a_head_of_the_last_layer_has_no_other_effect_than_its_direct_one():
    """Of a model without MLPs."""
    effects = of_task(mx.load_model("tiny"), TASK)
    sets = [[Unit("head", 1, n)] for n in range(4)]
    frozen = effects.without(sets, effects.mean(), frozen=effects.clean).value
    torch.testing.assert_close(frozen, effects.without(sets, effects.mean()).value)


def test_ioi_heads_finds_the_head_that_writes_the_answer():
    """Of an induction model: one head writes it, nothing makes up for it."""
    found = ioi_heads(model="tiny", task="induction")
    frame = found.to_pandas()
    direct = frame[frame["panel"] == "direct effect"].set_index(["x", "series"])["y"]
    assert direct.idxmin() == (1, "head 3")
    gone = frame[frame["panel"] == "direct effect, strongest gone"]
    assert len(gone) == 8 - 3
    costs, less, backups, _ = (claim.holds for claim in found.claims)
    assert (costs, less, backups) == (False, None, False)


def test_what_is_restored_is_the_slope_of_the_line():
    less = np.random.default_rng(0).normal(size=(3, 20))
    found = _slope(less, 0.7 * less + 5)
    np.testing.assert_allclose(found.to_list(), 0.7)


def test_a_layer_without_later_ones_loses_what_it_says_and_an_earlier_one_more():
    """Of the induction model: layer 0 says nothing itself, and layer 1 needs it."""
    rows = _layers("tiny", "induction", 12, 2, 0)
    means = {(row["series"], row["x"]): row["y"] for row in rows}
    assert means["attention, total", 1] == pytest.approx(means["attention, direct", 1], rel=0.15)
    assert abs(means["attention, direct", 0]) < 1 < 10 < means["attention, total", 0]


def test_self_repair_of_heads_on_passages():
    """Both estimators, by hand."""
    rows = _heads("tiny", tuple(PROMPTS), 3)
    assert {row["layer"] for row in rows} == {0, 1}
    sums = [
        {"layer": 0, "passage": passage, "tokens": 2, "direct": 4.0, "norm": norm, "heads": 0.0,
         "MLPs": 0.0, "norm, clipped": clipped, "heads, clipped": 0.0, "MLPs, clipped": 0.0}
        for passage, norm, clipped in ((0, -2.0, 0.5), (1, 1.0, 0.5))
    ]  # fmt: skip
    repairs = _Repairs(sums)
    assert repairs.share("norm").value == pytest.approx(-1 / 8)
    assert repairs.clipped("norm").value == pytest.approx(1 / 4)


def test_a_norm_that_is_not_known_is_refused(model, monkeypatch):
    """Layer norm that says it is RMS."""
    monkeypatch.setattr(model.cfg, "normalization_type", "RMS")
    with pytest.raises(mx.errors.ModelError, match="neither RMS nor layer"):
        of_task(model, TASK)
