"""The test for a monotone link: recognises bent sums, and nothing that is not one."""

from __future__ import annotations

import numpy as np
import pytest

from mechspex.core.masks import sample_masks
from mechspex.errors import BudgetError, FailedMasksError, ShapeError
from mechspex.recovery.monotone_link import Link, monotone_link


def sigmoid(score: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-2 * score))


LINKS = {
    "sigmoid": sigmoid,
    "exponential": np.exp,
    "clipped": lambda score: np.clip(score, -0.8, 0.8),
    "hinge": lambda score: np.maximum(score, 0),
    "falling": lambda score: 3 - sigmoid(score),
}


def additive(n_units: int, n_masks: int, keep: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks, and a sum of singles with variance one."""
    masks = sample_masks(n_units, n_masks, keep=keep, seed=(1, seed))
    score = (masks - keep) @ np.random.default_rng(seed).normal(size=n_units)
    return masks, score / score.std()


@pytest.mark.parametrize("size", [(30, 500, 0.5), (100, 1000, 0.5), (100, 2000, 0.9)])
@pytest.mark.parametrize("link", LINKS)
def test_monotone_links_are_recognised(link, size):
    masks, score = additive(*size, seed=1)
    found = monotone_link(masks, LINKS[link](score), keep=size[2])
    assert found.recognised
    assert found.share > 0.8
    assert found.additive_r2 < 0.95


def test_a_link_in_noise_is_recognised():
    masks, score = additive(40, 1000, 0.7, seed=2)
    noise = 0.1 * np.random.default_rng(0).normal(size=1000)
    assert monotone_link(masks, sigmoid(score) + noise).recognised


def test_sums_and_noise_are_no_link():
    masks, _ = additive(30, 300, 0.7, seed=0)
    found = [monotone_link(masks, np.random.default_rng(0).normal(size=300))]
    for seed in range(20):
        masks, score = additive(30, 300, 0.7, seed)
        noise = np.random.default_rng((2, seed)).normal(size=300)
        found.append(monotone_link(masks, score + (0.0, 0.3, 1.0)[seed % 3] * noise, seed=seed))
    assert not [link for link in found if link.recognised]
    assert max(link.share for link in found) < 0.1


INTERACTIONS = {
    "pair": lambda masks: masks[:, :2].all(axis=1),
    "backup": lambda masks: masks[:, :2].any(axis=1),
    "either": lambda masks: masks[:, 0] ^ masks[:, 1],
    "triple": lambda masks: masks[:, :3].all(axis=1),
    "two pairs": lambda masks: 1.0 * masks[:, :2].all(axis=1) - masks[:, 2:4].all(axis=1),
}


@pytest.mark.parametrize("keep", [0.5, 0.8])
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_interactions_are_no_link(interaction, keep):
    for seed in range(2):
        masks, score = additive(40, 1000, keep, seed)
        part = INTERACTIONS[interaction](masks).astype(float)
        noise = 0.1 * np.random.default_rng(seed).normal(size=1000)
        found = monotone_link(masks, score + part / part.std() + noise, keep=keep)
        assert not found.recognised, found
        assert found.share < 0.5


def test_a_link_beside_an_interaction_is_recognised_as_a_part():
    masks, score = additive(60, 1500, 0.5, seed=4)
    found = monotone_link(masks, sigmoid(score) + 0.2 * (masks[:, 0] ^ masks[:, 1]))
    assert found.recognised
    assert 0.1 < found.share < 0.8


def test_shift_and_scale_change_nothing():
    masks, score = additive(30, 500, 0.5, seed=5)
    one = monotone_link(masks, sigmoid(score))
    for values in (1000 + sigmoid(score), -1e-3 * sigmoid(score)):
        again = monotone_link(masks, values)
        assert again.share == pytest.approx(one.share, abs=1e-3)
        assert again.additive_r2 == pytest.approx(one.additive_r2, abs=1e-6)


def test_same_seed_same_answer_and_outputs_are_averaged():
    masks, score = additive(30, 500, 0.5, seed=6)
    values = np.stack([sigmoid(score), 2 * sigmoid(score)], axis=1)
    assert monotone_link(masks, values) == monotone_link(masks, values)
    assert monotone_link(masks, values) == monotone_link(masks, values.mean(axis=1))


@pytest.mark.parametrize("value", [0.0, 0.1, -7e5])
def test_constant_values_are_no_link(value):
    masks, _ = additive(10, 60, 0.5, seed=7)
    found = monotone_link(masks, np.full(60, value))
    assert found == Link(additive_r2=1.0, link_r2=1.0, p_value=1.0, n_masks=60)
    assert found.share == 0
    assert not found.recognised


def test_few_units_and_units_that_never_change():
    masks, _ = additive(5, 200, 0.5, seed=8)
    masks[:, 3] = True
    for n_units in (1, 2, 5):
        assert not monotone_link(masks[:, :n_units], masks[:, 0] * 2.0).recognised
    assert monotone_link(masks, np.exp(masks @ np.array([1.0, 0.8, 1.2, 5.0, -0.9]))).share > 0.8


def test_of_many_units_those_that_matter_are_used():
    masks = sample_masks(2000, 400, keep=0.9, seed=9)
    score = (masks[:, ::200] - 0.9) @ np.linspace(1, 2, 10)
    found = monotone_link(masks, sigmoid(score / score.std()), keep=0.9)
    assert found.recognised
    noise = np.random.default_rng(0).normal(size=400)
    assert not monotone_link(masks, score + 0.1 * noise, keep=0.9).recognised


def test_what_is_shown():
    masks, score = additive(30, 500, 0.5, seed=10)
    assert str(monotone_link(masks, sigmoid(score))).startswith("a monotone link: explains 1.00")
    assert str(monotone_link(masks, score)).startswith("no monotone link")


def test_refusals():
    masks, score = additive(10, 60, 0.5, seed=11)
    with pytest.raises(BudgetError, match="measure 20 more"):
        monotone_link(masks[:30], score[:30])
    with pytest.raises(ShapeError, match="one value a mask"):
        monotone_link(masks, score[:50])
    with pytest.raises(FailedMasksError, match="row 3"):
        monotone_link(masks, np.where(np.arange(60) == 3, np.nan, score))
