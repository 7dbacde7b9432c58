"""Metrics of several answers: against sums by hand, gradients included."""

import numpy as np
import pytest
import torch

from mechspex.errors import TaskError
from mechspex.tasks.metrics import (
    AnswerProbability,
    Continuations,
    LogitDifference,
    ProbabilityDifference,
    bind_metric,
)
from mechspex.tasks.teacher_forcing import forced_rows, places
from mechspex.tasks.tokens import Tokens

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


def tokens(answers, distractors):
    prompts = tuple(torch.tensor([0, 1, 2]) for _ in answers)
    return Tokens(prompts, None, answers, distractors)


SEVERAL = tokens(
    (((3, 1, 4), (3, 1), (5,)), ((2,),)),
    (((3, 2), (6,)), ((0, 7), (0, 6, 5))),
)


def test_differences_without_distractors_are_refused(logits):
    for metric in ("logit_difference", "probability_difference"):
        with pytest.raises(TaskError, match=f"metric '{metric}' needs distractors; give one"):
            bind_metric(metric, tokens=tokens((((1,),), ((2,),)), None), clean=logits[:2])


def random_model(rows):
    """Logits of a causal model that depend on all tokens so far."""
    weights = torch.randn(9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    so_far = (rows[..., None] + 1.0).double().cumsum(-2)
    return so_far % 7 @ weights[:1] + weights[rows]


def log_p(prompt, continuation):
    """By the definition: one token after the other, each from a forward of its own."""
    total, row = 0.0, [*prompt.tolist()]
    for token in continuation:
        total += random_model(torch.tensor(row))[-1].log_softmax(-1)[token].item()
        row.append(token)
    return total


@pytest.mark.parametrize("per_token", [False, True])
def test_whole_continuations_against_one_token_after_the_other(per_token):
    each = [
        [
            [log_p(SEVERAL.prompts[j], c) / (len(c) if per_token else 1) for c in several]
            for several in (SEVERAL.answers[j], SEVERAL.distractors[j])
        ]
        for j in range(2)
    ]
    p = [[np.exp(kind).sum() for kind in both] for both in each]
    expected = {
        "logit_difference": [np.log(a) - np.log(d) for a, d in p],
        "probability_difference": [a - d for a, d in p],
        "answer_probability": [a for a, _ in p],
        "answer_log_probability": [np.log(a) for a, _ in p],
    }
    groups = forced_rows(SEVERAL, read_continuations=True)
    assert sorted(j for group in groups for j in group.prompts) == [0, 1]
    for name, values in expected.items():
        metric = bind_metric(name, tokens=SEVERAL, clean=torch.zeros(2, 8), per_token=per_token)
        for group in groups:
            read = random_model(group.rows)[:, :, -group.n_read :]
            found = metric(read, torch.tensor(group.prompts))
            assert found.tolist() == pytest.approx([values[j] for j in group.prompts], abs=1e-5)


def test_continuations_that_begin_alike_share_a_row_and_rows_are_filled_at_their_end():
    (both,) = forced_rows(SEVERAL, read_continuations=True)
    assert both.prompts == (0, 1)
    assert both.rows.tolist() == [[[0, 1, 2, 3, 1]], [[0, 1, 2, 0, 6]]], "the longest serves all"
    assert forced_rows(SEVERAL, read_continuations=False)[0].rows.shape == (2, 1, 3)
    branching = tokens((((1, 2, 3), (4, 5)),), (((6,),),))
    (group,) = forced_rows(branching, read_continuations=True)
    assert group.rows.tolist() == [[[0, 1, 2, 1, 2], [0, 1, 2, 4, 2]]]
    assert group.real.tolist() == [[[True] * 5, [True] * 4 + [False]]]


def test_the_log_odds_of_single_tokens_are_the_difference_of_their_logits(logits):
    single = tokens((((3,),), ((2,),)), (((5,),), ((0,),)))
    rows = torch.tensor([0, 1])
    plain = bind_metric("logit_difference", tokens=single, clean=logits[:2])
    whole = Continuations("logit_difference", places(single))
    assert isinstance(plain, LogitDifference)
    found = whole(logits[:2, None, None], rows)
    assert torch.allclose(found, plain(logits[:2], rows).float(), atol=1e-5)
