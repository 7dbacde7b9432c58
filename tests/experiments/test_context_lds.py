"""Contexts whose answer needs sentences: the needed ones are found, by how many masks it takes."""

import pytest

import mechspex as mx
from mechspex.experiments.context_lds import (
    ADDITIVE,
    CONTEXT_CITE,
    INTERACTIONS,
    LEAVE_ONE_OUT,
    RANDOM,
    _claims,
    recovery_at,
    scores_of,
)
from mechspex.experiments.contexts import KINDS, made_context

NEEDED = (2, 7)


def answer(kept):
    """A log-probability that two sentences raise together, and one lowers by a little."""
    return -4.0 + 3.0 * (kept[:, 2] & kept[:, 7]) - 0.2 * kept[:, 4] + 0.1 * kept[:, 9]


@pytest.fixture(scope="module")
def scored():
    values = mx.FunctionValues(answer, mx.parts([f"sentence {i}" for i in range(12)]))
    rows = scores_of(values, NEEDED, (16, 128), n_tokens=1, seed=0)
    return {(row["method"], row["masks"]): row for row in rows}


def test_the_needed_pair_is_named_and_an_interaction_predicts_it(scored):
    for method in (ADDITIVE, INTERACTIONS, CONTEXT_CITE):
        assert scored[method, 128]["needed"] == 1, method
        assert scored[method, 128]["drop"] == pytest.approx(3.1, abs=0.35)
    assert scored[INTERACTIONS, 128]["lds"] == pytest.approx(1, abs=0.01)
    assert scored[ADDITIVE, 128]["lds"] < 0.97
    assert abs(scored[RANDOM, 1]["lds"]) < 0.7
    assert scored[LEAVE_ONE_OUT, 13]["relevant"] == 2
    # Fewer masks than a decoder can use are left out.
    assert (INTERACTIONS, 16) not in scored
    assert (ADDITIVE, 16) in scored


def test_recovery_counts_the_needed_in_each_of_the_strongest():
    """Both, one of two, none: (1 + ½ + 0) of the r strongest; the empty set is none of them."""
    terms = {(): 9.0, (2, 7): -3.0, (2, 4): 2.0, (9,): 1.0, (7,): 0.5}
    assert recovery_at(terms, NEEDED, 3) == pytest.approx(0.5)
    assert recovery_at(terms, NEEDED, 4) == pytest.approx(2.5 / 4)
    assert recovery_at(terms, NEEDED, 10) == pytest.approx(2.5 / 10)


@pytest.mark.parametrize("kind", KINDS)
def test_needed_sentences_name_what_the_question_asks_for(kind):
    for seed in range(20):
        context = made_context(kind, seed)
        assert len(context.sentences) == len(set(context.sentences)) == 12
        said = [context.sentences[column] for column in context.needed]
        assert len(said) == {"one": 1, "two": 2}[kind]
        right = [one for one in said if context.places[0] in one]
        (where,) = right
        if kind == "one":
            assert where.startswith(context.question)
        else:
            (has,) = (one for one in said if one is not where)
            assert has.split()[0] == where.split()[0]
            assert has.rstrip(".").split()[-1] == context.question.split()[1]
        assert context.places[0] not in context.question


def cells(sparse, alone, interactions, relevant=2):
    """Five contexts of twelve sentences."""
    found = []
    for number in range(5):
        shift = 0.001 * number
        for method, n, score in (
            (CONTEXT_CITE, 32, sparse), (CONTEXT_CITE, 256, 0.9), ("attention", 1, 0.2),
            (LEAVE_ONE_OUT, 13, alone), (INTERACTIONS, 64, interactions), (ADDITIVE, 64, 0.8),
        ):  # fmt: skip
            row = {"method": method, "masks": n, "lds": score + shift * (n % 3)}
            found.append(row | ({"relevant": relevant} if method == LEAVE_ONE_OUT else {}))
    return found


@pytest.mark.parametrize(
    ("sparse", "alone", "interactions", "relevant", "holds"),
    [
        (0.88, 0.82, 0.9, 2, (True, True, True, True)),
        (0.70, 0.82, 0.7, 9, (False, False, False, False)),
    ],
)
def test_claims_follow_the_numbers(sparse, alone, interactions, relevant, holds):
    both = {kind: cells(sparse, alone, interactions, relevant) for kind in KINDS}
    assert tuple(claim.holds for claim in _claims(both)) == holds
