"""Screening: predictions against planted functions, brute force and the tiny model."""

from itertools import combinations

import numpy as np
import pytest
import torch
from small_models import device_of
from transformer_lens.model_bridge.sources import boot_native

import mechspex as mx
from mechspex.core.restricted import RestrictedValues
from mechspex.core.units import Unit, UnitSet
from mechspex.decoders import Additive, Automatic, Pursuit, Residual, find_decoder
from mechspex.errors import FailedMasksError, ModelError, Refused, ShapeError
from mechspex.runs.recorded import RecordedValues
from mechspex.screening import survivors
from mechspex.screening.coarse_to_fine import split
from mechspex.screening.methods import find_method
from mechspex.screening.pair_scores import PairScores
from mechspex.set_functions.set_function import SetFunction


class Polynomial:
    """f(m) = Σ c_T Π_{i∈T} m_i^power, with its gradient: soft masks, several outputs."""

    def __init__(self, n_units, terms, power=1, spread=0.0):
        self.units = mx.parts(f"u{i}" for i in range(n_units))
        self.n_units, self.terms, self.power = n_units, terms, power
        rng = np.random.default_rng(0)
        self.scales = 1 + spread * rng.standard_normal(6)
        self.outputs = tuple(f"output {number}" for number in range(6))
        self.gradients = 0

    @property
    def configuration(self):
        # What it counts is no part of what it computes.
        return {"terms": str(self.terms), "power": str(self.power), "scales": str(self.scales)}

    def _mean(self, masks):
        powers = masks.astype(np.float64) ** self.power
        return sum(
            (c * powers[:, list(t)].prod(axis=1) for t, c in self.terms.items()),
            np.zeros(len(masks)),
        )

    def __call__(self, masks):
        return np.outer(self._mean(masks), self.scales).astype(np.float32)

    def value_and_gradient(self, masks):
        self.gradients += len(masks)
        masks = masks.astype(np.float64)
        slope = np.zeros(masks.shape)
        for term, c in self.terms.items():
            for i in term:
                others = [j for j in term if j != i]
                inner = self.power * masks[:, i] ** (self.power - 1)
                slope[:, i] += c * inner * (masks[:, others] ** self.power).prod(axis=1)
        values = np.outer(self._mean(masks), self.scales)
        gradients = slope[:, None] * self.scales[None, :, None]
        return values.astype(np.float32), gradients.astype(np.float32)


def planted(n_units, n_pairs, seed, triples=()):
    rng = np.random.default_rng(seed)
    pairs = {tuple(sorted(rng.choice(n_units, 2, replace=False).tolist())) for _ in range(n_pairs)}
    terms = {pair: float(rng.choice([-1, 1]) * rng.uniform(0.5, 1.5)) for pair in sorted(pairs)}
    singles = {(i,): float(rng.normal()) for i in range(n_units)}
    return singles | terms | dict(triples)


def exact(function, terms):
    return mx.validate(function, terms).effects


def test_first_order_is_exact_for_squares_at_the_midpoint_and_not_for_the_plain_gradient():
    function = Polynomial(40, {(i,): float(i - 20) for i in range(40)}, power=2)
    found = mx.screen(function, mx.FirstOrder(at=0.5), n_terms=40)
    assert np.allclose(found.scores, exact(function, found.terms), atol=1e-4)
    plain = mx.screen(function, mx.FirstOrder(parts=0), n_terms=40)
    assert np.allclose(plain.scores, 2 * exact(function, plain.terms), atol=1e-4)


def test_shares_are_averaged_and_the_default_is_halfway_from_the_midpoint_to_the_plain_gradient():
    cubes = Polynomial(30, planted(30, 12, seed=1), power=3, spread=0.1)

    def scores(function, **options):
        return mx.screen(function, mx.FirstOrder(**options)).single_scores

    midpoint, plain = scores(cubes, at=0.5), scores(cubes, parts=0)
    assert np.abs(midpoint - plain).min() > 0.05
    assert np.array_equal(scores(cubes), (midpoint + plain) / 2)
    assert np.array_equal(scores(cubes, at=(0.5, 1.0)), scores(cubes))
    assert np.array_equal(scores(cubes, at=1.0), plain)
    # 3 s² at the two nodes of Gauss are 1 on average: exact up to cubes.
    nodes = tuple(0.5 + sign / np.sqrt(12) for sign in (-1, 1))
    found = scores(cubes, at=nodes)
    assert np.allclose(found, exact(cubes, [(i,) for i in range(30)]), atol=1e-4)
    # The mean of ½ and 1 is three quarters as long as gradients are straight lines.
    squares = Polynomial(30, planted(30, 12, seed=1), power=2)
    assert np.allclose(scores(squares, at=0.75), scores(squares), atol=1e-5)


def test_gradients_that_several_shares_need_are_taken_once_each():
    function = Polynomial(40, {(i,): 1.0 for i in range(40)}, power=2)
    for at, needed in ((0.5, 30), ((0.5, 1.0), 31), ((0.25, 0.75), 60), (1.0, 1)):
        function.gradients = 0
        cost = mx.screen(function, mx.FirstOrder(at=at)).cost
        assert function.gradients == cost.measured == needed


@pytest.mark.parametrize("at", [0.25, 0.5, 0.75])
def test_units_of_one_part_see_each_other_as_far_as_they_are_kept(at):
    singles = {(i,): float(i + 1) for i in range(6)}
    function = Polynomial(6, singles | {(0, 1): 4.0, (1, 2): -2.0})
    together = np.array([4.0, 2.0, -2.0, 0, 0, 0])
    alone = mx.screen(function, mx.FirstOrder(parts=6, at=at)).single_scores
    assert np.allclose(alone, -(np.arange(1, 7) + together), atol=1e-5)
    one_part = mx.screen(function, mx.FirstOrder(parts=1, at=at)).single_scores
    assert np.allclose(one_part, -(np.arange(1, 7) + at * together), atol=1e-5)


def test_rows_give_every_pair_of_a_multilinear_function():
    function = Polynomial(30, planted(30, 12, seed=1, triples=[((1, 2, 3), 0.8)]), spread=0.1)
    found = mx.screen(function, mx.SecondOrder(rows=30), n_terms=435)
    assert found.considered == (30, 435)
    everything = list(combinations(range(30), 2))
    there = np.abs(exact(function, everything)) > 1e-5
    assert sorted(found.terms) == [
        pair for pair, held in zip(everything, there, strict=True) if held
    ]
    assert np.allclose(found.scores, exact(function, found.terms), atol=1e-4)


def test_probes_find_the_rows_that_matter():
    terms = planted(400, 30, seed=2)
    function = Polynomial(400, terms)
    found = mx.screen(function, mx.SecondOrder(rows=80, probes=64), n_terms=60)
    pairs = {term for term in terms if len(term) == 2}
    assert pairs <= set(found.terms)
    assert function.gradients < 30 + 1 + 64 + 1 + 80 + 1
    assert sum(s.size for s in found.rejected) + len(found.terms) == 400 * 399 // 2
    assert all(set(s.drawn).isdisjoint(found.terms) for s in found.rejected)
    assert all(len(set(s.drawn)) == len(s.drawn) == 40 for s in found.rejected)


def test_blocks_of_scores_are_those_of_the_whole_table(monkeypatch):
    monkeypatch.setattr("mechspex.screening.pair_scores._BLOCK", 7)
    rng = np.random.default_rng(3)
    table = rng.normal(size=(25, 25)).astype(np.float32)
    table += table.T
    np.fill_diagonal(table, 0)
    columns = np.array([2, 6, 7, 20])
    signs = rng.choice([-1.0, 1.0], (4000, 25)).astype(np.float32)
    scores = PairScores(columns, table[columns], signs, signs @ table)
    pairs, found = scores.best(300)
    assert sorted(map(tuple, pairs.tolist())) == list(combinations(range(25), 2))
    assert np.all(np.diff(np.abs(found)) <= 0)
    known = np.isin(pairs, columns).any(axis=1)
    truth = table[pairs[:, 0], pairs[:, 1]]
    assert np.allclose(found[known], truth[known], atol=1e-5)
    # The rest is an estimate: unbiased, with a spread of the unit's other pairs / √probes.
    assert np.corrcoef(found[~known], truth[~known])[0, 1] > 0.98
    few, best = scores.best(10)
    assert np.array_equal(few, pairs[:10])
    assert np.array_equal(best, found[:10])


def test_a_row_and_a_column_of_one_pair_are_averaged():
    columns = np.array([0, 1])
    rows = np.array([[0, 2, 5], [4, 0, 6]], dtype=np.float32)
    none = np.empty((0, 3), dtype=np.float32)
    scores = PairScores(columns, rows, none, none)
    pairs, found = scores.best(3)
    assert dict(zip(map(tuple, pairs.tolist()), found.tolist(), strict=True)) == {
        (0, 1): 3, (0, 2): 5, (1, 2): 6,
    }  # fmt: skip


def test_third_order_extends_the_best_pairs():
    triples = [((1, 2, 3), 2.0), ((4, 5, 6), -1.5)]
    function = Polynomial(40, planted(40, 10, seed=4, triples=triples))
    found = mx.screen(function, mx.SecondOrder(max_order=3), n_terms=20)
    scores = dict(zip(found.terms, found.scores, strict=True))
    for triple, _ in triples:
        assert scores[triple] == pytest.approx(exact(function, [triple])[0], abs=1e-4)
    assert len(found.considered) == 3


def test_an_additive_function_yields_no_pair():
    function = Polynomial(60, {(i,): float(i % 7 - 3) for i in range(60)}, spread=0.3)
    found = mx.screen(function, n_terms=50)
    assert np.abs(found.scores).max(initial=0) < 1e-5
    tested = mx.validate(function, [(0, 1), (5, 9), *found.terms])
    assert not tested.confirmed.any()
    answer = mx.explain(function, screen="second_order", n_masks=150, decoder="pursuit")
    assert not answer.interactions()["confirmed"].any()


def test_an_additive_function_of_squares_yields_no_pair_that_is_confirmed():
    function = Polynomial(500, {(i,): float(i % 7 - 3) for i in range(500)}, power=2, spread=0.3)
    found = mx.screen(function, mx.SecondOrder(rows=20, probes=16), n_terms=50)
    assert not mx.validate(function, found.terms).confirmed.any()


def test_missed_finds_what_a_bad_screen_rejects():
    terms = planted(60, 300, seed=5)
    function = Polynomial(60, terms)
    good = mx.screen(function, mx.SecondOrder(n_rejected=200), n_terms=300)
    good_recall = mx.missed(function, good, mx.validate(function, good.terms), at_least=0.4)
    assert good_recall.n_missed == 0
    assert good_recall.recall == 1
    few = mx.screen(function, mx.SecondOrder(n_rejected=200), n_terms=30)
    estimate = mx.missed(function, few, mx.validate(function, few.terms), at_least=0.4)
    there = sum(len(term) == 2 for term in terms)
    assert estimate.n_found == 30
    assert estimate.estimate == pytest.approx(there - 30, rel=0.3)
    assert "missed" in str(estimate)


def test_rejected_sets_without_a_finite_value_are_no_part_of_the_sample():
    function = Polynomial(40, planted(40, 12, seed=4))
    screened = mx.screen(function, n_terms=3)
    tested = mx.validate(function, screened.terms)
    drawn = [stratum.drawn for stratum in screened.rejected]

    def failing(masks):
        lost = ~masks[:, [i for i, _ in fails]] & ~masks[:, [j for _, j in fails]]
        return np.where(lost.any(axis=1), np.nan, function(masks).mean(axis=1))

    exact = [np.abs(mx.validate(function, terms).effects) >= 0.4 for terms in drawn]
    fails = [next(t for t, hit in zip(drawn[-1], exact[-1], strict=True) if not hit)]
    values = mx.FunctionValues(failing, function.units)
    found = mx.missed(values, screened, tested, at_least=0.4)
    assert found.n_tested == sum(map(len, drawn)) - 1
    sizes = [len(terms) for terms in drawn]
    sizes[-1] -= 1
    shares = zip(screened.rejected, exact, sizes, strict=True)
    assert found.estimate == pytest.approx(sum(s.size * hit.sum() / n for s, hit, n in shares))
    fails = list(drawn[-1])
    with pytest.raises(FailedMasksError, match="no rejected set has a finite value"):
        mx.missed(values, screened, tested, at_least=0.4)


def test_missed_without_anything_rejected_is_refused():
    function = Polynomial(5, dict.fromkeys(combinations(range(5), 2), 1.0))
    found = mx.screen(function)
    with pytest.raises(Refused, match="rejected no pairs"):
        mx.missed(function, found, mx.validate(function, found.terms))


def test_survivors_widen_until_they_explain_the_whole():
    function = Polynomial(200, {(i,): 1.0 for i in range(200)})
    found = mx.screen(function, "first_order", n_terms=1)
    recorded = RecordedValues(function, None)
    columns, explained = survivors(
        recorded, found, n_units=20, most=150, target=0.6, keep=0.9, seed=0
    )
    assert len(columns) == 150
    assert 0.5 < explained < 0.95
    columns, explained = survivors(
        recorded, found, n_units=20, most=200, target=0.99, keep=0.9, seed=0
    )
    assert len(columns) == 200
    assert explained == pytest.approx(1)


def test_restricted_values_keep_all_others():
    function = Polynomial(10, planted(10, 5, seed=7), spread=0.2)
    restricted = RestrictedValues(function, [7, 2])
    assert restricted.units.names == ("u7", "u2")
    masks = np.array([[True, False], [False, False]])
    whole = np.ones((2, 10), dtype=bool)
    whole[:, 2] = False
    whole[1, 7] = False
    assert np.array_equal(restricted(masks), function(whole))
    assert restricted.configuration["restricted to"] == "u7 u2"


def test_the_search_is_restricted_to_survivors_and_the_answer_is_kept(tmp_path):
    terms = {(3, 77): 1.0, (5,): 2.0, (9, 300): -1.5, (200,): -1.0}
    function = Polynomial(400, terms, spread=0.2)
    run = tmp_path / "run"
    answer = mx.explain(function, screen="second_order", n_masks=300, decoder="pursuit", run=run)
    assert answer.screening is not None
    assert 100 <= answer.screening.n_survivors < 400
    assert answer.screening.n_units == 400
    assert answer.screening.explained > 0.99
    assert answer.r2 > 0.98
    confirmed = answer.interactions().query("confirmed")["units"].tolist()
    assert confirmed == ["u9 × u300", "u3 × u77"]
    assert "screened by second_order" in str(answer)
    assert answer.screening.missed is not None
    assert answer.screening.missed.n_missed == 0
    assert mx.Explanation.load(run).screening == answer.screening
    before = function.gradients
    again = mx.explain(function, screen="second_order", n_masks=300, decoder="pursuit", run=run)
    assert function.gradients == before
    assert again.cost.measured == 0
    assert again.to_dict()["terms"] == answer.to_dict()["terms"]


def test_a_stopped_screen_goes_on_where_it_was(tmp_path, monkeypatch):
    function = Polynomial(60, planted(60, 10, seed=8))
    whole = mx.screen(function)
    needed, function.gradients = function.gradients, 0
    measure = function.value_and_gradient

    def stops(masks):
        if function.gradients > needed // 2:
            raise KeyboardInterrupt
        return measure(masks)

    monkeypatch.setattr(function, "value_and_gradient", stops)
    with pytest.raises(KeyboardInterrupt):
        mx.screen(function, run=tmp_path / "run")
    monkeypatch.setattr(function, "value_and_gradient", measure)
    found = mx.screen(function, run=tmp_path / "run")
    assert function.gradients == needed
    assert found.terms == whole.terms
    assert np.array_equal(found.scores, whole.scores)


@pytest.mark.parametrize(
    ("method", "option"),
    [
        (mx.SecondOrder, {"max_order": 1}),
        (mx.SecondOrder, {"rows": 0}),
        (mx.SecondOrder, {"probes": 1}),
        (mx.SecondOrder, {"n_extended": 0}),
        (mx.SecondOrder, {"n_rejected": 0}),
        (mx.SecondOrder, {"parts": -1}),
        (mx.FirstOrder, {"parts": -1}),
        (mx.FirstOrder, {"parts": 0, "keep": 0.5}),
        (mx.FirstOrder, {"keep": 1.0}),
        (mx.FirstOrder, {"at": 0.0}),
        (mx.FirstOrder, {"at": float("nan")}),
        (mx.SecondOrder, {"at": 1.5}),
        (mx.CoarseToFine, {"n_masks": 0}),
    ],
)
def test_options_of_a_method_that_make_no_sense_are_refused(method, option):
    name, value = next(iter(option.items()))
    with pytest.raises(Refused, match=f"{name} = {value}"):
        method(**option)


@pytest.mark.parametrize(
    ("at", "told"), [((0.5, 2.0), "at = 2.0"), ((), r"at = \(\)"), ((0.5, -1.0), "at = -1.0")]
)
def test_each_of_several_shares_is_one(at, told):
    with pytest.raises(Refused, match=f"{told}: give .*share"):
        mx.FirstOrder(at=at)


def test_bad_arguments_are_refused():
    function = Polynomial(5, {(0,): 1.0})
    with pytest.raises(Refused, match="n_terms = 0"):
        mx.screen(function, n_terms=0)
    with pytest.raises(Refused, match="method = 'third_order': choose first_order"):
        find_method("third_order")


def test_old_keywords_become_options_of_the_method():
    function = Polynomial(6, {(0, 1): 1.0, (2, 3, 4): 1.0})
    with pytest.warns(DeprecationWarning, match=r"max_order= is now method=SecondOrder"):
        found = mx.screen(function, max_order=3)  # pyright: ignore[reportCallIssue]
    assert found.terms == mx.screen(function, mx.SecondOrder(max_order=3)).terms
    with pytest.warns(DeprecationWarning, match=r"n_masks= is now method=CoarseToFine"):
        found = mx.screen(function, "ablation", n_masks=20)  # pyright: ignore[reportCallIssue]
    assert found.terms == mx.screen(function, mx.CoarseToFine(20)).terms
    warned = pytest.warns(DeprecationWarning, match="parts= is now")
    with warned, pytest.raises(Refused, match="parts = -1"):
        mx.screen(function, "first_order", parts=-1)  # pyright: ignore[reportCallIssue]


def test_a_function_without_gradients_is_refused():
    function = mx.FunctionValues(lambda masks: masks.sum(axis=1), mx.parts("abc"))
    with pytest.raises(Refused, match="value_and_gradient"):
        mx.screen(function)


@pytest.fixture
def task():
    return mx.Task(
        prompts=["apple bird boat apple", "moon lake key moon", "wood wall door wood"],
        answers=[" bird", " lake", " wall"],
        distractors=[" boat", " key", " door"],
        corrupted=["flag bird boat apple", "tree lake key moon", "snow wall door wood"],
    )


@pytest.mark.parametrize("ablation", ["mean", "zero", "resample", "corrupted"])
def test_heads_neurons_and_mlps_of_a_model_under_every_reference(llama, task, ablation):
    units = mx.heads(llama) + mx.mlps(llama) + mx.neurons(llama)[:20]
    values = mx.ComponentValues(llama, task, units, ablation)
    found = mx.screen(values, n_terms=60)
    assert np.corrcoef(found.scores, exact(values, found.terms))[0, 1] > 0.7
    singles = mx.screen(values, "first_order", n_terms=len(units))
    assert np.corrcoef(singles.scores, exact(values, singles.terms))[0, 1] > 0.7


def test_heads_at_positions(gpt2, task):
    units = mx.heads(gpt2, positions=[1, 3])
    values = mx.ComponentValues(gpt2, task, units)
    found = mx.screen(values, n_terms=10)
    assert all("@" in name for name in found.to_pandas()["units"])
    assert np.corrcoef(found.scores, exact(values, found.terms))[0, 1] > 0.7


def test_a_model_without_interactions_has_none(tiny):
    """One attention layer and no norms: heads add up in the logits, so no pair acts together."""
    config = {
        "n_layers": 1, "n_heads": 4, "d_model": 8, "d_head": 2, "n_ctx": 16, "d_vocab": 206,
        "attn_only": True, "normalization_type": None, "positional_embedding_type": "rotary",
        "seed": 0,
    }  # fmt: skip
    model = boot_native(config, tokenizer=tiny.tokenizer, model_name="additive").eval()
    task = mx.load_task("induction", model, n_prompts=8, seed=0)
    values = mx.ComponentValues(model, task, mx.heads(model))
    found = mx.screen(values)
    every = list(combinations(range(4), 2))
    size = np.abs(found.single_scores).max()
    assert np.abs(found.scores).max(initial=0) < 1e-5 * max(1, size)
    assert not mx.validate(values, every).confirmed.any()
    answer = mx.explain(values, screen="second_order", n_masks=300)
    assert not answer.interactions()["confirmed"].any()


def test_strongest_units_count_pairs_as_well():
    function = Polynomial(50, {(3,): 1.0, (10, 20): 4.0})
    found = mx.screen(function, n_terms=5)
    assert found.strongest_units(3).tolist() == [3, 10, 20]
    assert mx.screen(function, "first_order").reach.sum() == 0


def test_a_proxy_is_held_against_the_full_model():
    full = Polynomial(40, planted(40, 20, seed=9))
    same = mx.agreement(full, full)
    assert same.rank_correlation == same.correlation == pytest.approx(1)
    assert same.same_sign == same.recall == 1
    other = mx.agreement(Polynomial(40, planted(40, 20, seed=10)), full)
    assert abs(other.rank_correlation) < 0.5
    assert other.same_sign < 0.8
    upside_down = Polynomial(40, {term: -c for term, c in full.terms.items()})
    against = mx.agreement(upside_down, full, [(0,), ("u1", "u2"), (5,)])
    assert against.correlation == pytest.approx(-1)
    assert against.terms == ((0,), (1, 2), (5,))
    assert "rank correlation -1.00" in str(against)


def test_candidates_are_held_against_the_full_model():
    full = Polynomial(40, planted(40, 20, seed=9))
    found = mx.screen(full)
    assert mx.agreement(found, full).correlation == pytest.approx(1)
    with pytest.raises(Refused, match="no score for u0"):
        mx.agreement(found, full, [(0,)])
    with pytest.raises(Refused, match="same units"):
        mx.agreement(found, Polynomial(5, {(0,): 1.0}))


@pytest.mark.parametrize("failed", [np.nan, np.inf])
def test_agreement_is_over_the_sets_that_both_could_measure(failed):
    whole = [-3.0, 2.0, -1.0, 0.5, 0.25]
    units = mx.parts(5)
    proxy = mx.FunctionValues(lambda kept: kept @ np.array(whole), units)
    full = mx.FunctionValues(
        lambda kept: np.where(kept[:, 1], kept @ np.array(whole), failed), units
    )
    for one, other in ((proxy, full), (full, proxy)):
        found = mx.agreement(one, other, k=1)
        assert found.correlation == pytest.approx(1)
        assert found.rank_correlation == pytest.approx(1)
        assert (found.same_sign, found.recall) == (1, 1)
        assert str(found).startswith("on 4 sets (1 more have no finite value): ")


def test_bad_arguments_are_refused_before_the_screen_is_paid_for():
    function = Polynomial(60, planted(60, 10, seed=11))
    with pytest.raises(Refused, match="keep = 2"):
        mx.explain(function, screen="second_order", design=mx.RandomMasks(2.0))
    with pytest.raises(Refused, match="decoder 'spex' reads"):
        mx.explain(function, screen="second_order", decoder="spex", design="mixed")
    assert function.gradients == 0


def test_effects_among_random_masks_are_the_fourier_singles_of_that_density():
    terms = planted(24, 10, seed=12, triples=[((1, 2, 3), 0.8)])
    found = mx.screen(Polynomial(24, terms), mx.FirstOrder(parts=2_000, keep=0.7))
    truth = SetFunction.from_mapping(24, terms, basis="kept").to_basis("fourier", 0.7)
    singles = np.array([truth[(i,)] for i in range(24)]) / np.sqrt(0.7 * 0.3)
    assert np.allclose(-found.single_scores, singles, atol=0.1)
    whole = mx.screen(Polynomial(24, terms), "first_order")
    assert not np.allclose(-whole.single_scores, singles, atol=0.3)


def test_what_a_screen_predicts_is_a_function():
    terms = planted(20, 8, seed=13)
    function = Polynomial(20, terms)
    masks = mx.sample_masks(20, 50, keep=0.6, seed=0)
    predicted = mx.screen(function).function.predict(masks)
    left = function(masks).mean(axis=1) - predicted
    assert np.ptp(left) < 1e-3
    assert np.ptp(predicted) > 1


def test_a_prior_saves_masks():
    rng = np.random.default_rng(0)
    terms = {(i,): float(c) for i, c in enumerate(rng.normal(size=60))} | {(3, 7): 2.0}
    truth = SetFunction.from_mapping(60, terms, basis="ablated")
    prior = SetFunction.from_mapping(
        60, {t: c * rng.uniform(0.8, 1.2) for t, c in terms.items()}, basis="ablated"
    )
    masks, fresh = (mx.sample_masks(60, n, keep=0.8, seed=n) for n in (40, 300))
    values, held_out = (truth.predict(part) for part in (masks, fresh))
    for decoder in ("additive", "kernel", Automatic((Additive(), Pursuit()))):
        without = mx.recover(masks, values, fresh, held_out, decoder=decoder, keep=0.8)
        with_it = mx.recover(masks, values, fresh, held_out, decoder=decoder, keep=0.8, prior=prior)
        assert with_it.r2 > max(0.95, without.r2 + 0.1)
        assert with_it.additive_r2 == without.additive_r2
    # Whatever the decoder: nothing left over is nothing to add.
    exactly = mx.decode(masks, values, decoder=Residual(find_decoder("pursuit"), truth), keep=0.8)
    assert np.allclose(exactly.predict(fresh), held_out)
    assert "pursuit beyond a prior" in Residual(find_decoder("pursuit"), truth).name
    with pytest.raises(ShapeError, match="60 units and 1 outputs, the samples 20"):
        mx.decode(masks[:, :20], values, decoder=Residual(find_decoder("additive"), prior))


def test_a_prior_of_one_output_stands_for_all():
    truth = SetFunction.from_mapping(12, {(0,): 1.0, (1, 2): 2.0}, basis="ablated")
    masks = mx.sample_masks(12, 100, keep=0.7, seed=0)
    values = truth.predict(masks)[:, None] * [1.0, 1.5, 0.5]
    answer = mx.decode(masks, values, decoder=Residual(find_decoder("pursuit"), truth), keep=0.7)
    assert answer.n_outputs == 3
    assert np.allclose(answer.predict_outputs(masks), values, atol=1e-6)


def layered(n_layers, width):
    units = [Unit("head", layer, number) for layer in range(n_layers) for number in range(width)]
    units += [Unit("mlp", layer, 0) for layer in range(n_layers)]
    return UnitSet(tuple(units))


def test_coarse_to_fine_finds_the_few_that_matter_without_gradients():
    units = layered(16, 32)
    strong = units.columns(["L3H5", "L3H20", "L9H31", "L12MLP"])
    truth = SetFunction.from_mapping(
        len(units),
        {(strong[0],): 1.0, (strong[2],): -0.8, tuple(sorted(strong[:2])): 1.5}
        | {tuple(sorted((strong[2], strong[3]))): -1.2}
        | {(column,): 0.001 for column in units.columns(["L0H0", "L7H7"])},
        basis="kept",
    )
    function = mx.FunctionValues(truth.predict, units)
    found = mx.screen(function, mx.CoarseToFine(n_masks=300))
    assert found.cost.masks < 330
    assert set(found.strongest_units(4).tolist()) == set(strong)
    exactly = exact(function, found.terms)
    pairs = [row for row, term in enumerate(found.terms) if len(term) == 2]
    assert np.allclose(found.scores[pairs], exactly[pairs], atol=1e-5)
    largest = sorted(term for row, term in enumerate(found.terms) if abs(exactly[row]) > 0.1)
    assert all(term in found.terms for term in largest)
    assert tuple(sorted(strong[:2])) in largest


@pytest.mark.parametrize("n_masks", [1, 5, 40, 10_000])
def test_coarse_to_fine_keeps_to_its_masks(n_masks):
    units = layered(4, 8)
    function = mx.FunctionValues(lambda masks: masks.sum(axis=1), units)
    found = mx.screen(function, mx.CoarseToFine(n_masks))
    # The clean model and the first split come in any case; 36 singles and 630 pairs are all.
    assert found.cost.masks <= min(max(n_masks, 4) + 1, 1 + 4 + 72 + 630)
    assert np.allclose(found.single_scores, -1)
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("fails", [(0,), (0, 2)])
def test_no_pair_is_proposed_of_masks_without_a_finite_value(fails):
    def values(kept):
        whole = 1.0 * kept[:, 1] + 2.0 * (kept[:, 2] | kept[:, 3])
        return np.where(kept[:, list(fails)].any(axis=1), whole, np.nan)

    found = mx.screen(mx.FunctionValues(values, 4), "ablation")
    predicted = dict(zip(found.terms, found.scores, strict=True))
    # Unit 0 alone, or units 0 and 2 together, have no value: nothing is said of them.
    assert predicted == {(1,): -1.0, (2, 3): -2.0}
    assert found.considered[1] == {1: 3, 2: 5}[len(fails)]


def test_groups_are_layers_then_kinds_then_halves():
    units = layered(2, 3)
    layers = split(units, tuple(range(8)))
    assert layers == [(0, 1, 2, 6), (3, 4, 5, 7)]
    assert split(units, layers[0]) == [(0, 1, 2), (6,)]
    assert split(units, (0, 1, 2)) == [(0,), (1, 2)]


def test_explain_screens_by_ablation_or_with_candidates_made_before():
    units = layered(10, 30)
    terms = {(4,): 1.0, (40, 75): 1.5, (200,): -1.0}
    truth = SetFunction.from_mapping(len(units), terms, basis="kept")
    function = mx.FunctionValues(lambda m: np.outer(truth.predict(m), [0.9, 1.0, 1.2]), units)
    found = mx.screen(function, mx.CoarseToFine(400))
    for screen in ("ablation", found):
        answer = mx.explain(function, screen=screen, n_masks=300, decoder="pursuit")
        confirmed = answer.interactions().query("confirmed")["units"].tolist()
        assert confirmed == [units.label((40, 75))]
        assert answer.r2 > 0.99
    assert "rank correlation" in str(answer)
    with pytest.raises(Refused, match="same units"):
        mx.explain(Polynomial(5, {(0,): 1.0}), screen=found)


def test_explain_screens_a_proxy_and_says_how_it_agrees(tmp_path):
    full = Polynomial(60, planted(60, 10, seed=14))
    proxy = Polynomial(60, {term: 0.9 * c for term, c in full.terms.items()})
    run = tmp_path / "run"
    answer = mx.explain(full, screen=proxy, n_masks=150, decoder="pursuit", run=run)
    assert full.gradients == 0
    assert proxy.gradients > 0
    assert "rank correlation 1.00" in str(answer.screening.agreement)
    assert "the proxy agrees with the model on" in str(answer)
    # Terms the proxy proposes have effects nine tenths as large: r is 1, the numbers differ.
    agrees = answer.screening.agrees
    assert isinstance(agrees, mx.Agreement)
    assert agrees.predicted == pytest.approx(0.9 * agrees.exact, abs=1e-4)
    assert np.abs(agrees.exact).max() > 0.1
    assert str(agrees) == answer.screening.agreement
    again = mx.Explanation.load(run)
    assert again.screening.agreement == answer.screening.agreement
    assert again.screening.agrees == agrees
    assert again == answer


def test_confirmed_terms_are_measured_in_random_contexts(tmp_path):
    """Kept together only with unit 9, which random contexts ablate now and then."""
    terms = {(0,): 1.0, (1, 2, 9): 2.0}
    function = Polynomial(12, terms, spread=0.1)
    run, tests = tmp_path / "run", mx.ExactTests(contexts=200)
    options = {"n_masks": 300, "design": mx.RandomMasks(0.7), "decoder": "pursuit"}
    answer = mx.explain(function, **options, tests=tests, run=run)
    frame = answer.to_pandas().set_index("units")
    assert frame.loc["u1 × u2", "effect"] == pytest.approx(2.0, rel=0.2)
    assert frame.loc["u1 × u2", "in_contexts"] == pytest.approx(1.4, rel=0.25)
    assert "among 200 random masks of the other units" in str(answer)
    again = mx.Explanation.load(run)
    assert np.array_equal(again.in_contexts.effects, answer.in_contexts.effects)
    with pytest.raises(Refused, match="contexts = 1"):
        mx.explain(function, tests=mx.ExactTests(contexts=1))


def test_an_early_exit_leaves_out_later_blocks(llama, task):
    values = mx.ComponentValues(llama, task, mx.heads(llama))
    masks = mx.sample_masks(8, 20, keep=0.5, seed=0)
    assert np.allclose(values.early_exit(2)(masks), values(masks), atol=1e-4)
    proxy = values.early_exit(1)
    later = masks.copy()
    later[:, 4:] ^= True
    assert np.allclose(proxy(later), proxy(masks), atol=1e-6)
    assert not np.allclose(proxy(masks), values(masks), atol=1e-4)
    assert proxy.configuration != values.configuration
    _, gradients = proxy.value_and_gradient(masks.astype(np.float32))
    assert not gradients[..., 4:].any()
    assert gradients[..., :4].any()
    # Its clean value is the logit lens: final norm and unembedding of what leaves the first block.
    cache = {}
    point = llama.blocks[0].hook_out
    hook = point.register_forward_hook(lambda _module, _input, output: cache.update(out=output))
    model = llama.original_model
    with torch.no_grad():
        tokens = llama.tokenizer(list(task.prompts), return_tensors="pt").input_ids
        model(tokens.to(device_of(llama)))
    hook.remove()
    with torch.no_grad():
        logits = model.lm_head(model.model.norm(cache["out"]))[:, -1]
    answers, distractors = (
        torch.tensor([llama.tokenizer(t, add_special_tokens=False).input_ids[0] for t in part])
        for part in (task.answers, task.distractors)
    )
    logits = logits.cpu()
    lens = logits.gather(1, answers[:, None]) - logits.gather(1, distractors[:, None])
    assert np.allclose(proxy(np.ones((1, 8), dtype=bool))[0], lens[:, 0].numpy(), atol=1e-4)
    with pytest.raises(ModelError, match="n_blocks = 3"):
        values.early_exit(3)
    with pytest.raises(ModelError, match="first with units is block 1; give 2"):
        mx.ComponentValues(llama, task, mx.heads(llama)[4:]).early_exit(1)
