"""Scores under several references: held against hooks written out, and against `faithfulness`."""

import pytest
import torch
from small_models import device_of

import mechspex as mx
from mechspex.circuits.circuit import Circuit
from mechspex.core.units import Unit, UnitSet
from mechspex.errors import Refused
from mechspex.runs.recorded import RecordedValues
from mechspex.tasks.tokens import tokenize


@pytest.fixture(scope="module")
def heads(tiny):
    return mx.heads(tiny)


def circuit_of(heads, *names):
    return Circuit(heads, tuple(sorted(heads.columns(names))))


def divergence_by_hand(model, task, circuit):
    """KL(clean ‖ circuit alone) of each prompt, the other heads zeroed by hooks of our own."""
    kept = torch.from_numpy(circuit.mask.reshape(2, 4)).float().to(device_of(model))

    def zeroed(layer):
        # The heads lie side by side before the output projection.
        row = kept[layer].repeat_interleave(model.cfg.d_head)
        return lambda _module, _inputs, output: output * row

    def last_logits():
        prompts = torch.stack(tokenize(task, model.tokenizer).prompts).to(device_of(model))
        rows = [model(prompt[None])[0, -1].cpu() for prompt in prompts]
        return torch.stack(rows).double().log_softmax(-1)

    with torch.no_grad():
        clean = last_logits()
        hooks = [
            model.hook_dict[f"blocks.{layer}.attn.hook_z"].register_forward_hook(zeroed(layer))
            for layer in range(2)
        ]
        masked = last_logits()
    for hook in hooks:
        hook.remove()
    return (clean.exp() * (clean - masked)).sum(-1).numpy()


def test_the_divergence_is_that_of_hooks_written_out(tiny, tiny_task, heads):
    for names in (("L0H1", "L1H3"), ("L0H1",), ("L0H0", "L1H1")):
        circuit = circuit_of(heads, *names)
        scores = mx.reference_scores(tiny, tiny_task, circuit, ["zero"]).scores["zero"]
        divergence = scores["kl_divergence"]
        by_hand = divergence_by_hand(tiny, tiny_task, circuit)
        assert divergence.value == pytest.approx(by_hand.mean(), rel=1e-4, abs=1e-5)
        assert by_hand.min() - 1e-5 <= divergence.low <= divergence.high <= by_hand.max() + 1e-5


def test_shares_are_those_of_faithfulness(tiny, tiny_task, heads):
    circuit = circuit_of(heads, "L0H1", "L1H0")
    found = mx.reference_scores(tiny, tiny_task, circuit)
    assert list(found.scores) == ["mean", "zero", "resample", "corrupted"]
    for reference, scores in found.scores.items():
        values = mx.ComponentValues(tiny, tiny_task, heads, reference)
        held = mx.faithfulness(values, circuit.members, n_random=0)
        # Batches of other sizes round differently on a graphics card.
        rounding = 0 if device_of(tiny).type == "cpu" else 1e-5
        for one, other in (
            (scores["faithfulness"], held.faithfulness),
            (scores["completeness"], held.completeness),
        ):
            exact = (other.value, other.low, other.high)
            assert (one.value, one.low, one.high) == pytest.approx(
                exact, rel=rounding, abs=rounding
            )
        assert scores["accuracy"].value == held.correct
        assert scores["clean_accuracy"].value == held.clean_correct


def test_the_whole_model_is_its_own_circuit_and_idle_heads_are_none(tiny, tiny_task, heads):
    whole = mx.reference_scores(tiny, tiny_task, Circuit(heads, tuple(range(8))), ["zero"])
    scores = whole.scores["zero"]
    assert (scores["faithfulness"].value, scores["completeness"].value) == (1.0, 0.0)
    assert scores["kl_divergence"].value == pytest.approx(0, abs=1e-6)
    # Six of six right: Wilson's interval begins at 6 / (6 + 1.96²).
    assert scores["accuracy"].low == pytest.approx(6 / (6 + 1.959964**2))
    assert scores["accuracy"].high == pytest.approx(1)
    idle = mx.reference_scores(tiny, tiny_task, circuit_of(heads, "L0H0", "L1H1"), ["zero"])
    assert idle.scores["zero"]["faithfulness"].high < 0.2
    assert idle.scores["zero"]["completeness"].low > 0.8
    assert idle.scores["zero"]["kl_divergence"].low > 1


def test_a_reference_that_cannot_be_had_is_said(tiny, tiny_task, heads):
    plain = mx.Task(tiny_task.prompts, tiny_task.answers, tiny_task.distractors)
    circuit = circuit_of(heads, "L0H1", "L1H3")
    assert "corrupted" not in mx.reference_scores(tiny, plain, circuit).scores
    found = mx.reference_scores(tiny, plain, circuit, ["zero", "corrupted"])
    assert set(found.scores) == {"zero"}
    assert "corrupted" in found.refused["corrupted"]
    assert "corrupted has no scores: " in str(found)
    frame = found.to_pandas().set_index(["reference", "score"])
    assert frame.loc[("zero", "faithfulness"), "value"] == pytest.approx(1, abs=1e-3)
    assert found.to_dict()["schema"] == "mechspex.reference_scores/1"


def test_metrics_without_a_distractor_have_no_accuracy(tiny, tiny_task, heads):
    likely = mx.Task(tiny_task.prompts, tiny_task.answers, metric="answer_probability")
    circuit = circuit_of(heads, "L0H1", "L1H3")
    scores = mx.reference_scores(tiny, likely, circuit, ["zero"]).scores["zero"]
    assert set(scores) == {"faithfulness", "completeness", "kl_divergence"}


def test_without_any_reference_there_is_no_answer(tiny, tiny_task, heads):
    with pytest.raises(Refused, match="name at least one"):
        mx.reference_scores(tiny, tiny_task, Circuit(heads, (0,)), [])
    for unit, said in ((Unit("head", 7, 0), "blocks.7"), (Unit("head", 1, 9), "no head 9")):
        other = UnitSet((Unit("head", 0, 0), unit))
        with pytest.raises(Refused, match=said):
            mx.reference_scores(tiny, tiny_task, Circuit(other, (0,)))


def test_a_run_keeps_the_values(tiny, tiny_task, heads, tmp_path, monkeypatch):
    circuit = circuit_of(heads, "L0H1", "L1H0")
    first = mx.reference_scores(tiny, tiny_task, circuit, ["zero", "mean"], run=tmp_path / "run")
    measured = []
    measure = RecordedValues._measure

    def counted(self, masks, rows):
        measured.append(len(rows))
        return measure(self, masks, rows)

    monkeypatch.setattr(RecordedValues, "_measure", counted)
    again = mx.reference_scores(tiny, tiny_task, circuit, ["zero", "mean"], run=tmp_path / "run")
    assert again == first
    assert not measured
    # Another circuit shares the two ends; its divergence is that of the circuit alone.
    mx.reference_scores(tiny, tiny_task, circuit_of(heads, "L0H1"), ["zero"], run=tmp_path / "run")
    assert measured == [2, 1]
