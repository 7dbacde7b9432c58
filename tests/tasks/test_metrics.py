"""Metrics of several answers: against sums by hand, gradients included."""

import pytest
import torch

from mechspex.errors import TaskError
from mechspex.tasks.metrics import AnswerProbability, ProbabilityDifference, bind_metric

ANSWERS = torch.tensor([[3, 1, 4], [0, -1, -1]])
DISTRACTORS = torch.tensor([[2, -1], [5, 6]])


@pytest.fixture
def logits():
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_probabilities_are_summed_over_each_prompts_own_sets(logits):
    rows = torch.tensor([1, 0, 0, 1])
    p = logits.softmax(-1)
    right = {0: p[:, [3, 1, 4]].sum(1), 1: p[:, 0]}
    wrong = {0: p[:, 2], 1: p[:, [5, 6]].sum(1)}
    difference = ProbabilityDifference(ANSWERS, DISTRACTORS)(logits, rows)
    assert AnswerProbability(ANSWERS)(logits, rows).tolist() == pytest.approx(
        [right[j][row].item() for row, j in enumerate(rows.tolist())], abs=1e-6
    )
    assert difference.tolist() == pytest.approx(
        [(right[j] - wrong[j])[row].item() for row, j in enumerate(rows.tolist())], abs=1e-6
    )


def test_one_answer_a_prompt_is_a_set_of_one(logits):
    rows, one, other = torch.arange(4), torch.tensor([1, 2, 3, 4]), torch.tensor([5, 6, 7, 0])
    p = logits.softmax(-1)
    found = ProbabilityDifference(one, other)(logits, rows)
    assert torch.allclose(found, (p[rows, one] - p[rows, other]).float())


def test_what_fills_a_row_up_has_no_gradient(logits):
    logits.requires_grad_()
    ProbabilityDifference(ANSWERS[1:], DISTRACTORS[:1])(logits[:1], torch.tensor([0])).backward()
    p = logits[0].softmax(-1)
    expected = torch.autograd.grad(p[0] - p[2], logits)[0]
    assert torch.allclose(logits.grad, expected, atol=1e-7)


def test_differences_without_or_with_too_many_distractors_are_refused(logits):
    one = torch.tensor([1, 2])
    for metric in ("logit_difference", "probability_difference"):
        with pytest.raises(TaskError, match=f"metric '{metric}' needs distractors; give one"):
            bind_metric(metric, answers=one, distractors=None, clean=logits[:2])
    with pytest.raises(TaskError, match="reads one answer .*choose probability_difference"):
        bind_metric("logit_difference", answers=ANSWERS, distractors=one, clean=logits[:2])
