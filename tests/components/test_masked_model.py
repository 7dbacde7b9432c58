"""A model with some units ablated, on any text."""

import numpy as np
import pytest
import torch

import mechspex as mx
from mechspex.core.errors import AblationError, ModelError, Refused
from tests.small_models import ANSWERS, DISTRACTORS, PROMPTS

KINDS = {"heads": mx.heads, "neurons": mx.neurons, "mlps": mx.mlps}
LONGER = "apple bird boat apple moon lake"


@pytest.fixture(scope="module")
def task():
    return mx.Task(PROMPTS, ANSWERS, DISTRACTORS)


def tokens_of(model, text):
    device = next(model.original_model.parameters()).device
    return torch.tensor([model.tokenizer(text).input_ids], device=device)


def masked_and_measured(model, task, kind, ablation):
    """A model without the first and the last unit of a kind, and its values by `mechspex`."""
    units = KINDS[kind](model)
    values = mx.ComponentValues(model, task, units, ablation)
    ablated = [0, len(units) - 1]
    mask = np.ones((1, len(units)), dtype=bool)
    mask[0, ablated] = False
    return values.masked_model(ablated), values(mask)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ablation", ["zero", "position_mean"])
@pytest.mark.parametrize("made", ["gpt2", "llama"])
def test_its_logits_are_those_that_values_are_made_of(request, task, made, kind, ablation):
    model = request.getfixturevalue(made)
    masked, measured = masked_and_measured(model, task, kind, ablation)
    there = []
    for prompt, answer, distractor in zip(
        task.prompts, task.answers, task.distractors, strict=True
    ):
        logits = masked.logits(tokens_of(model, prompt))[0]
        right, wrong = (
            tokens_of(model, text)[0, -1] for text in (answer.strip(), distractor.strip())
        )
        there.append(float(logits[right] - logits[wrong]))
    assert there == pytest.approx(measured.tolist(), abs=2e-4)


def test_hooks_are_given_back_to_transformer_lens(gpt2, task):
    masked, _ = masked_and_measured(gpt2, task, "heads", "position_mean")
    tokens = tokens_of(gpt2, LONGER)
    logits = gpt2.run_with_hooks(tokens, fwd_hooks=masked.hooks)
    assert torch.allclose(logits[:, -1], masked.logits(tokens), atol=1e-4)
    assert not torch.allclose(gpt2(tokens)[:, -1], masked.logits(tokens), atol=1e-2)


@pytest.mark.parametrize("made", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_checkpoint_is_the_ablated_model_in_any_program(
    request, task, tmp_path, made, kind
):
    model = request.getfixturevalue(made)
    masked, _ = masked_and_measured(model, task, kind, "zero")
    before = model(tokens_of(model, LONGER))
    masked.save(tmp_path / "pruned")
    read = mx.load_model(tmp_path / "pruned")
    tokens = tokens_of(read, LONGER)
    assert torch.allclose(
        read(tokens)[:, -1].cpu(), masked.logits(tokens_of(model, LONGER)).cpu(), atol=1e-4
    )
    assert torch.equal(model(tokens_of(model, LONGER)), before), "the model itself is as it was"


def test_generate_takes_the_likeliest_token_each_time(gpt2, task):
    masked, _ = masked_and_measured(gpt2, task, "mlps", "zero")
    tokens = tokens_of(gpt2, LONGER)
    said = []
    for _ in range(4):
        said.append(int(masked.logits(tokens).argmax()))
        tokens = torch.cat([tokens, tokens.new_tensor([said[-1:]])], dim=1)
    assert masked.generate(LONGER, 4) == gpt2.tokenizer.decode(said, skip_special_tokens=True)
    with pytest.raises(Refused, match="n_tokens = 0: give at least 1"):
        masked.generate(LONGER, 0)


def test_what_another_text_does_not_have_is_refused(gpt2, task, tmp_path):
    heads = mx.heads(gpt2)
    with pytest.raises(AblationError, match="'mean' has a reference for each position.*'zero' or"):
        mx.ComponentValues(gpt2, task, heads, "mean").masked_model(["L0H0"])
    placed = mx.ComponentValues(gpt2, task, mx.heads(gpt2, positions=1), "zero")
    with pytest.raises(AblationError, match="units at one position are of the task's prompts"):
        placed.masked_model([0])
    rescaled = mx.ComponentValues(gpt2, task, heads, "zero", rescale=True)
    with pytest.raises(AblationError, match="rescale counts"):
        rescaled.masked_model([0])
    meant = mx.ComponentValues(gpt2, task, heads, "position_mean").masked_model([0])
    with pytest.raises(AblationError, match="no place for references that are not 0"):
        meant.save(tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()


def test_a_native_model_has_hooks_and_no_checkpoint(tiny, tiny_task, tmp_path):
    masked = mx.ComponentValues(tiny, tiny_task, mx.heads(tiny), "zero").masked_model(["L1H0"])
    assert masked.ablated == ("L1H0",)
    assert isinstance(masked.generate(tiny_task.prompts[0], 2), str)
    with pytest.raises(ModelError, match="no model of the transformers library.*hooks or generate"):
        masked.save(tmp_path / "pruned")


@pytest.mark.parametrize("there", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_a_folder_that_holds_a_model_is_not_written_over(gpt2, task, tmp_path, there):
    masked, _ = masked_and_measured(gpt2, task, "heads", "zero")
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / there).write_text("original")
    with pytest.raises(Refused, match=f"already holds a model .{there}.; name another folder"):
        masked.save(tmp_path)
    assert (tmp_path / there).read_text() == "original"
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(Refused, match="is a file; name a folder"):
        masked.save(tmp_path / there)


def test_a_folder_that_holds_something_else_is_written_into_once(gpt2, task, tmp_path):
    masked, _ = masked_and_measured(gpt2, task, "heads", "zero")
    (tmp_path / "README.md").write_text("mine")
    masked.save(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    with pytest.raises(Refused, match="already holds a model"):
        masked.save(tmp_path)


def test_the_model_of_a_circuit_ablates_all_others(gpt2, task):
    units = mx.heads(gpt2)
    values = mx.ComponentValues(gpt2, task, units, "zero")
    circuit = mx.Circuit(units, (1, 4))
    assert circuit.model(values).ablated == ("L0H0", "L0H2", "L1H0", "L1H2")
    with pytest.raises(Refused, match="the circuit"):
        mx.Circuit(mx.mlps(gpt2), (0,)).model(values)
