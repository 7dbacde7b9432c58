"""LDS against the number of models trained: each method pays for what it trains."""

from functools import partial

import numpy as np
import pytest

from mechspex.experiments.data_lds import (
    ADDITIVE,
    INFLUENCE,
    INTERACTIONS,
    LEAVE_ONE_OUT,
    LOGISTIC,
    NETWORK,
    POISON,
    RANDOM,
    SECOND,
    TRACIN,
    Case,
    _claims,
    _logistic,
    _mlp,
    scores_of,
)

COUNTS = (40, 160)


@pytest.fixture(scope="module")
def scored():
    """40 digits by logistic regression, and by a network of two seeds."""
    rows = []
    for name, made in ((LOGISTIC, _logistic), (NETWORK, _mlp)):
        rows += scores_of(Case(name, partial(made, "digits", 40), COUNTS, 40), seed=0)
    return {(row["panel"], row["series"], row["x"]): row for row in rows}


def test_a_method_stands_at_the_models_it_trains(scored):
    places = {
        panel: {(method, n) for of, method, n in scored if of == panel}
        for panel in (LOGISTIC, NETWORK)
    }
    decoded = [(method, n) for method in (ADDITIVE, INTERACTIONS) for n in COUNTS]
    one = {(RANDOM, 1), (TRACIN, 1), (INFLUENCE, 1), (SECOND, 1), (LEAVE_ONE_OUT, 41)}
    assert places[LOGISTIC] == one | set(decoded)
    # A value is the mean over two trainings; influence functions are those of a minimum.
    two = {(RANDOM, 1), (TRACIN, 2), (LEAVE_ONE_OUT, 82)}
    assert places[NETWORK] == two | {(method, 2 * n) for method, n in decoded}


def test_what_is_told_is_what_is_measured(scored):
    """Influence and many models predict, chance does not, and more models predict better."""
    y = {place: row["y"] for place, row in scored.items()}
    assert abs(y[LOGISTIC, RANDOM, 1]) < 0.3
    assert y[LOGISTIC, INFLUENCE, 1] > 0.7
    assert y[LOGISTIC, SECOND, 1] > y[LOGISTIC, INFLUENCE, 1]
    assert y[LOGISTIC, ADDITIVE, 160] > y[LOGISTIC, ADDITIVE, 40]
    for row in scored.values():
        assert row["low"] <= row["y"] <= row["high"]
        assert np.mean(row["each"]) == pytest.approx(row["y"])


def rows(**scores):
    """Scores of five targets, {method: LDS at the fewest and at the most models}."""
    apart = np.linspace(-0.01, 0.01, 5)
    found = []
    for panel in (LOGISTIC, NETWORK, POISON):
        for method, both in scores.items():
            for n_models, score in zip((1, 100)[: len(both)], both, strict=True):
                found.append(
                    {"panel": panel, "series": method, "x": n_models, "each": score + apart}
                )
    return found


@pytest.mark.parametrize(
    ("influence", "interactions", "holds", "passed"),
    [
        (0.85, 0.95, (True, True, True, True), "from 100 models on"),
        (0.60, 0.70, (False, True, True, False), "from 100 models on"),
        (0.95, 0.90, (True, True, True, None), "with none"),
    ],
)
def test_claims_follow_the_numbers(influence, interactions, holds, passed):
    scores = {
        INFLUENCE: (influence,),
        TRACIN: (0.4,),
        ADDITIVE: (0.2, 0.9),
        INTERACTIONS: (0.1, interactions),
    }
    claims = _claims(rows(**scores))
    assert tuple(claim.holds for claim in claims[:4]) == holds
    assert passed in claims[0].measured
