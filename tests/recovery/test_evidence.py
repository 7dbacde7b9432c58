"""Evidence: unbiased however bad the decoder, intervals that cover, few false discoveries."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest

from mechspex.core.masks import sample_masks
from mechspex.core.units import Term
from mechspex.decoders import Kernel, Pursuit
from mechspex.decoders.cross_validation import cross_fit
from mechspex.decoders.decoder import Decoder, Samples, check_samples
from mechspex.recovery.evidence import Evidence, gather_evidence
from mechspex.set_functions.bases import features
from mechspex.set_functions.set_function import SetFunction


class Constant(Decoder):
    """The worst decoder: whatever it sees, the same function."""

    name = "constant"
    wrong: dict[Term, float]

    def __init__(self, wrong: dict[Term, float]) -> None:
        object.__setattr__(self, "wrong", wrong)

    def minimum_masks(self, n_units: int) -> int:
        return 1

    def fit(self, samples: Samples) -> SetFunction:
        n_outputs = samples.values.shape[1]
        return samples.function({t: np.full(n_outputs, c) for t, c in self.wrong.items()})


class Eager(Decoder):
    """Names every single and every pair, with whatever coefficient the masks show."""

    name = "eager"

    def minimum_masks(self, n_units: int) -> int:
        return 1

    def fit(self, samples: Samples) -> SetFunction:
        terms = [t for k in range(3) for t in combinations(range(samples.n_units), k)]
        columns = features(samples.masks, terms, basis="fourier", keep=samples.keep)
        shown = 0.2 * columns.T @ samples.values / samples.n_masks
        return samples.function(dict(zip(terms, shown, strict=True)))


def gather(
    masks: np.ndarray,
    values: np.ndarray,
    decoder: Decoder,
    keep: float,
    function: SetFunction | None = None,
    *,
    level: float = 0.05,
    resamples: int = 0,
) -> Evidence:
    samples = check_samples(masks, values, keep=keep, max_order=None, seed=0)
    function = decoder.decode(samples) if function is None else function
    without, residual = cross_fit(samples, decoder, 3)
    return gather_evidence(samples, function, without, residual, level=level, resamples=resamples)


def planted(keep: float) -> SetFunction:
    terms: dict[Term, float] = {
        (): 1.0, (0,): 2.0, (1,): -1.0, (0, 1): 0.8, (2, 3): -0.5, (1, 2, 4): 0.4, (3, 5): 0.0
    }  # fmt: skip
    return SetFunction.from_mapping(6, terms, basis="fourier", keep=keep)


# ── The estimate ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("keep", "n_masks"), [(0.5, 150), (0.8, 1_000)])
@pytest.mark.parametrize("wrong", [{(): 3.0}, {(): -1.0, (0,): 1.0, (3, 5): 2.0}])
def test_the_estimate_is_unbiased_and_its_interval_covers_whatever_the_decoder_says(
    keep: float, n_masks: int, wrong: dict[Term, float]
):
    """Over 200 draws: mean error within 4 standard errors of 0 for each of 6 terms (a false alarm
    in 1 of 2,600 runs); coverage of nominal 90% within 4 standard errors, 8.5 points, below."""
    truth = planted(keep)
    errors, covered = [], []
    for draw in range(200):
        masks = sample_masks(6, n_masks, keep=keep, seed=draw)
        noise = 0.5 * np.random.default_rng(draw).normal(size=n_masks)
        values = truth.predict(masks) + noise
        found = gather(masks, values, Constant(wrong), keep, truth, level=0.1)
        wanted = np.array([truth[term] for term in found.terms])
        order = np.argsort([truth.terms.index(term) for term in found.terms])
        low, high = found.intervals.T
        errors.append((found.coefficients - wanted)[order])
        covered.append(((low <= wanted) & (wanted <= high))[order])
        assert len(found.terms) == 6
        assert ((low < found.coefficients) & (found.coefficients < high)).all()
    spread = np.std(errors, axis=0) / np.sqrt(200)
    assert (np.abs(np.mean(errors, axis=0)) < 4 * spread).all()
    assert (np.mean(covered, axis=0) > 0.9 - 4 * np.sqrt(0.09 / 200)).all()
    assert np.mean(covered) < 0.97, "nor are they wider than they need to be"


def test_a_better_decoder_gives_narrower_intervals():
    truth = planted(0.5)
    masks = sample_masks(6, 200, seed=1)
    values = truth.predict(masks) + 0.1 * np.random.default_rng(1).normal(size=200)
    widths = [
        np.diff(gather(masks, values, decoder, 0.5, truth).intervals, axis=1).mean()
        for decoder in (Pursuit(), Constant({(): 1.0}))
    ]
    assert widths[0] < 0.2 * widths[1]


def test_values_without_noise_are_certain_and_zero_is_not_evidence():
    truth = planted(0.5)
    masks = sample_masks(6, 200, seed=1)
    found = gather(masks, truth.predict(masks), Pursuit(), 0.5, truth)
    discovered = {t for t, sure in zip(found.terms, found.discovered, strict=True) if sure}
    assert discovered == set(truth.terms) - {(), (3, 5)}
    np.testing.assert_allclose(found.coefficients, [truth[term] for term in found.terms], atol=1e-6)


# ── False discoveries ─────────────────────────────────────────────────────────────────────────────


def noise_values(masks: np.ndarray, signal: float, draw: int, n_outputs: int = 1) -> np.ndarray:
    """A sum of singles and noise as large."""
    rng = np.random.default_rng((draw, 1))
    weights = rng.normal(size=(masks.shape[1], n_outputs))
    additive = masks @ weights
    scale = signal / max(additive.std(), 1e-9)
    return scale * additive + rng.normal(size=(len(masks), n_outputs))


# 200 repetitions in all; the share with any false interaction at level 5% has a standard error of
# 2.2 to 4.9 points, and three of them are allowed on top. The largest is the case with 20.
@pytest.mark.parametrize(
    ("decoder", "keep", "signal", "n_outputs", "draws"),
    [
        (Pursuit(), 0.5, 0.0, 1, 25),
        (Pursuit(), 0.5, 2.0, 1, 25),
        (Pursuit(), 0.9, 0.0, 1, 25),
        (Pursuit(), 0.9, 2.0, 1, 25),
        (Kernel(n_terms=200, tuning_masks=80), 0.5, 0.0, 1, 10),
        (Kernel(n_terms=200, tuning_masks=80), 0.9, 2.0, 1, 10),
        (Eager(), 0.5, 0.0, 1, 20),
        (Eager(), 0.9, 0.0, 1, 20),
        (Eager(), 0.5, 0.0, 3, 20),
        (Eager(), 0.9, 0.0, 3, 20),
    ],
    ids=lambda value: value.name if isinstance(value, Decoder) else str(value),
)
def test_where_there_are_no_interactions_hardly_any_are_discovered(
    decoder: Decoder, keep: float, signal: float, n_outputs: int, draws: int
):
    false = 0
    for draw in range(draws):
        masks = sample_masks(8, 120, keep=keep, seed=draw)
        values = noise_values(masks, signal, draw, n_outputs)
        false += bool(gather(masks, values, decoder, keep).interactions)
    assert false / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_among_true_singles_the_false_discovery_rate_holds(n_outputs: int):
    """60 draws, every pair tested, by a decoder that leaves most of the singles in the residual:
    the mean share of false discoveries is at most the level and three standard errors."""
    shares = []
    for draw in range(60):
        masks = sample_masks(12, 160, seed=draw)
        found = gather(masks, noise_values(masks, 2.0, draw, n_outputs), Eager(), 0.5)
        shares.append(len(found.interactions) / max(1, int(found.discovered.sum())))
    assert np.mean(shares) <= 0.05 + 3 * np.std(shares) / np.sqrt(60)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_p_values_of_nothing_are_not_too_small(n_outputs: int):
    """20 draws of 78 null terms; draws are independent, terms nearly so."""
    p_values = []
    for draw in range(20):
        masks = sample_masks(12, 160, seed=draw)
        values = noise_values(masks, 0.0, draw, n_outputs)
        p_values.append(gather(masks, values, Eager(), 0.5).p_values)
    for threshold in (0.001, 0.01, 0.1):
        shares = np.mean(np.array(p_values) < threshold, axis=1)
        assert shares.mean() <= threshold + 3 * np.sqrt(threshold / p_values[0].size / 20)


# ── True discoveries ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("keep", "n_masks"), [(0.5, 400), (0.9, 4_000)])
def test_a_planted_interaction_is_discovered(keep: float, n_masks: int):
    """At p = .9 both units of a pair are ablated in one mask of a hundred."""
    truth = SetFunction.from_mapping(
        16, {(0,): 1.0, (3, 7): 1.0, (2, 5): -0.8}, basis="fourier", keep=keep
    )
    masks = sample_masks(16, n_masks, keep=keep, seed=2)
    values = truth.predict(masks) + 0.5 * np.random.default_rng(2).normal(size=n_masks)
    found = gather(masks, values, Pursuit(), keep)
    assert set(found.interactions) == {(3, 7), (2, 5)}
    assert 1 <= found.n_singles <= 2, "one is true; one in twenty may be false"
    frame = found.to_pandas()
    assert {"0", "3 × 7", "2 × 5"} <= set(frame["units"][frame["discovered"]])
    assert frame["coefficient"].abs().is_monotonic_decreasing


def test_what_cancels_in_the_mean_is_discovered_by_hotelling():
    truth = SetFunction.from_mapping(16, {(0,): 1.0, (3, 7): 1.0}, basis="fourier")
    masks = sample_masks(16, 200, seed=2)
    outputs = truth.predict(masks)[:, None] * np.array([1.0, -1.0, 0.0])
    values = outputs + np.random.default_rng(2).normal(size=(200, 3))
    found = gather(masks, values, Pursuit(), 0.5)
    assert found.interactions == ((3, 7),)
    place = found.terms.index((3, 7))
    assert found.intervals[place, 0] < 0 < found.intervals[place, 1], "the mean shows nothing"
    assert not gather(masks, values.mean(axis=1), Pursuit(), 0.5).interactions


def test_a_term_that_rests_on_a_few_rare_masks_is_no_discovery():
    """At p = .97 a pair is ablated together about once in 1,000 masks; one outlier is no proof."""
    masks = sample_masks(10, 300, keep=0.97, seed=3)
    masks[:, [0, 1]] = True
    masks[7, [0, 1]] = False
    values = np.random.default_rng(0).normal(size=300)
    values[7] += 100.0
    function = SetFunction.from_mapping(10, {(0, 1): 1.0}, basis="fourier", keep=0.97)
    assert not gather(masks, values, Constant({(): 0.0}), 0.97, function).discovered.any()


def test_selection_repeats_for_the_planted_term_and_not_for_noise():
    truth = SetFunction.from_mapping(20, {(0,): 1.0, (3, 7): 1.0}, basis="fourier")
    masks = sample_masks(20, 300, seed=4)
    values = truth.predict(masks) + 0.5 * np.random.default_rng(4).normal(size=300)
    named = {(0,): 1.0, (3, 7): 1.0, (5, 6): 0.1, (11,): 0.1}
    function = SetFunction.from_mapping(20, named, basis="fourier")
    found = gather(masks, values, Pursuit(), 0.5, function, resamples=10)
    share = dict(zip(found.terms, found.selected.tolist(), strict=True))
    assert share[0,] >= 0.9
    assert share[3, 7] >= 0.9
    assert share[5, 6] <= 0.1
    assert share[11,] <= 0.2
    assert np.isnan(gather(masks, values, Pursuit(), 0.5, function).selected).all()


# ── Storage ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("resamples", [0, 3])
def test_evidence_survives_json(resamples: int):
    truth = planted(0.5)
    masks = sample_masks(6, 100, seed=1)
    values = truth.predict(masks) + np.random.default_rng(1).normal(size=100)
    found = gather(masks, values, Pursuit(), 0.5, truth, resamples=resamples)
    back = Evidence.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert back.terms == found.terms
    assert back.level == found.level
    for name in ("coefficients", "intervals", "p_values", "discovered", "selected"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))


def test_a_wrong_constant_gives_no_joint_evidence():
    """What a decoder is wrong by in the mean is part of the residual, so of its spread as well."""
    named: dict[Term, np.ndarray] = {(0,): np.ones(3), (1, 2): np.ones(3)}
    function = SetFunction.from_mapping(6, named, basis="fourier")
    p_values = []
    for draw in range(200):
        masks = sample_masks(6, 100, seed=draw)
        values = np.random.default_rng(draw).normal(size=(100, 3)) + np.array([3.0, 0.0, -3.0])
        p_values.append(gather(masks, values, Constant({(): 0.0}), 0.5, function).p_values)
    assert np.mean(np.array(p_values) < 0.05, axis=0).max() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_constant_has_no_terms_to_test():
    masks = sample_masks(6, 60, seed=1)
    values = np.random.default_rng(1).normal(size=60)
    constant = SetFunction.from_mapping(6, {(): 1.0}, basis="fourier")
    found = gather(masks, values, Constant({(): 1.0}), 0.5, constant, resamples=2)
    assert found.terms == found.interactions == ()
    assert len(found.to_pandas()) == 0
    assert Evidence.from_dict(json.loads(json.dumps(found.to_dict()))).intervals.shape == (0, 2)


@pytest.mark.parametrize("n_masks", [160, 500])
def test_pairs_hardly_ever_ablated_together_are_no_false_discoveries(n_masks: int):
    """At p = .9, by a decoder that leaves most of the singles in the residual."""
    for draw in range(20):
        masks = sample_masks(12, n_masks, keep=0.9, seed=draw)
        assert not gather(masks, noise_values(masks, 2.0, draw), Eager(), 0.9).interactions


def test_terms_on_which_too_few_masks_bear_have_no_interval():
    """Three units of p = .9 are ablated together in one mask of a thousand."""
    masks = sample_masks(6, 300, keep=0.9, seed=0)
    truth = SetFunction.from_mapping(6, {(0,): 1.0, (0, 1, 2): 1.0}, basis="fourier", keep=0.9)
    found = gather(masks, truth.predict(masks), Constant({(): 0.0}), 0.9, truth)
    place = found.terms.index((0, 1, 2))
    assert np.isnan(found.intervals[place]).all()
    assert found.p_values[place] == 1
    assert not found.discovered[place]
    again = Evidence.from_dict(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_equal(again.intervals, found.intervals)
