import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechspex.core.masks import all_masks
from mechspex.errors import Refused, ShapeError
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.set_function import SetFunction

N = 6
MASKS = all_masks(N)
BASES = ["fourier", "kept", "ablated"]

terms = st.sets(st.integers(0, N - 1), max_size=4).map(lambda s: tuple(sorted(s)))
mappings = st.dictionaries(terms, st.floats(-3, 3), max_size=8)
densities = st.sampled_from([0.1, 0.5, 0.9])


def product(mask, term, basis, p):
    """φ_S(m), straight from its definition."""
    factor = {
        "fourier": lambda kept: (kept - p) / math.sqrt(p * (1 - p)),
        "kept": lambda kept: kept,
        "ablated": lambda kept: 1 - kept,
    }[basis]
    return math.prod(factor(float(mask[i])) for i in term)


@given(mappings, st.sampled_from(BASES), densities)
def test_prediction_is_the_sum_of_products(mapping, basis, p):
    function = SetFunction.from_mapping(N, mapping, basis=basis, keep=p)
    naive = [sum(c * product(m, t, basis, p) for t, c in mapping.items()) for m in MASKS]
    assert np.allclose(function.predict(MASKS), naive)


@given(mappings, st.sampled_from(BASES), st.sampled_from(BASES), densities, densities)
def test_a_change_of_basis_changes_no_value(mapping, basis, other, p, q):
    function = SetFunction.from_mapping(N, mapping, basis=basis, keep=p)
    converted = function.to_basis(other, q)
    assert converted.basis == other
    assert np.allclose(converted.predict(MASKS), function.predict(MASKS))
    back = converted.to_basis(basis, p)
    assert np.allclose(back.predict(MASKS), function.predict(MASKS))


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_fourier_features_are_orthonormal_under_their_design(p):
    weight = np.prod(np.where(MASKS, p, 1 - p), axis=1)
    sets = [(), (0,), (1, 2), (0, 3, 5)]
    columns = [SetFunction.from_mapping(N, {s: 1.0}, basis="fourier", keep=p) for s in sets]
    values = np.stack([column.predict(MASKS) for column in columns], axis=1)
    assert np.allclose(values.T @ (weight[:, None] * values), np.eye(len(sets)))


def test_an_and_is_one_kept_term_and_an_or_one_ablated_term():
    an_and = SetFunction.from_mapping(N, {(0, 2, 4): 1.0}, basis="kept")
    assert np.array_equal(an_and.predict(MASKS), MASKS[:, [0, 2, 4]].all(1))
    backups = SetFunction.from_mapping(N, {(): 1.0, (0, 2, 4): -1.0}, basis="ablated")
    assert np.array_equal(backups.predict(MASKS), MASKS[:, [0, 2, 4]].any(1))
    assert len(backups.to_basis("kept")) == 2**3
    assert len(an_and.to_basis("fourier")) == 2**3


def test_ablated_singles_and_pairs_are_effects_in_the_whole_model():
    rng = np.random.default_rng(0)
    mapping = {s: rng.normal() for k in range(4) for s in combinations(range(N), k)}
    function = SetFunction.from_mapping(N, mapping, basis="fourier", keep=0.9)

    def without(*units):
        mask = np.ones((1, N), dtype=bool)
        mask[0, list(units)] = False
        return function.predict(mask)[0]

    ablated = function.to_basis("ablated")
    assert ablated[()] == pytest.approx(without())
    assert ablated[(2,)] == pytest.approx(without(2) - without())
    joint = without(1, 4) - without()
    assert ablated[(1, 4)] == pytest.approx(joint - ablated[(1,)] - ablated[(4,)])


def random_function(seed, p=0.5):
    rng = np.random.default_rng(seed)
    sets = [s for k in range(N + 1) for s in combinations(range(N), k)]
    chosen = rng.choice(len(sets), 12, replace=False)
    return SetFunction.from_mapping(
        N, {sets[i]: rng.normal() for i in chosen}, basis="fourier", keep=p
    )


def value_of(function):
    values = function.predict(MASKS)
    return lambda kept: values[sum(1 << i for i in kept)]


def derivative(value, term, context):
    """Σ_{S⊆T} (−1)^{|T|−|S|} f(context ∪ S)."""
    return sum(
        (-1) ** (len(term) - k) * value(set(context) | set(s))
        for k in range(len(term) + 1)
        for s in combinations(term, k)
    )


@pytest.mark.parametrize("seed", range(3))
def test_indices_against_brute_force(seed):
    function = random_function(seed)
    value = value_of(function)
    everyone = range(N)
    banzhaf, shapley = function.indices("banzhaf"), function.indices("shapley")
    influence = function.indices("influence")
    for i in everyone:
        others = [j for j in everyone if j != i]
        gains = [
            value({*s, i}) - value(s) for k in range(N) for s in map(set, combinations(others, k))
        ]
        assert banzhaf.get((i,), 0) == pytest.approx(np.mean(gains))
        # Influence: the mean square of half the gain, the share of the variance i has a part in.
        assert influence.get((i,), 0) == pytest.approx(np.mean(np.square(gains)) / 4)
        joining = [
            value(set(order[: order.index(i) + 1])) - value(set(order[: order.index(i)]))
            for order in permutations(everyone)
        ]
        assert shapley.get((i,), 0) == pytest.approx(np.mean(joining))
    total = value(set(everyone)) - value(set())
    assert sum(shapley.values()) == pytest.approx(total)


@pytest.mark.parametrize("seed", range(3))
def test_interaction_indices_against_brute_force(seed):
    function = random_function(seed)
    value = value_of(function)
    moebius = function.indices("moebius")
    interaction = function.indices("shapley_interaction", order=3)
    for k in range(1, 4):
        for term in combinations(range(N), k):
            assert moebius.get(term, 0) == pytest.approx(derivative(value, term, ()), abs=1e-9)
            others = [j for j in range(N) if j not in term]
            expected = sum(
                math.factorial(len(s)) * math.factorial(N - k - len(s)) / math.factorial(N - k + 1)
                * derivative(value, term, s)
                for size in range(len(others) + 1)
                for s in combinations(others, size)
            )  # fmt: skip
            assert interaction.get(term, 0) == pytest.approx(expected, abs=1e-9)


def test_faith_banzhaf_is_the_best_approximation_of_its_order():
    function = random_function(1)
    sets = [s for k in range(3) for s in combinations(range(N), k)]
    design = np.array([[mask[list(s)].all() for s in sets] for mask in MASKS], dtype=float)
    best, *_ = np.linalg.lstsq(design, function.predict(MASKS), rcond=None)
    faithful = function.indices("faith_banzhaf", order=2)
    assert np.allclose([faithful.get(s, 0) for s in sets], best)


def test_indices_refuse_what_makes_no_sense():
    function = random_function(0)
    with pytest.raises(Refused, match="needs an order"):
        function.indices("shapley_interaction")
    with pytest.raises(Refused, match="takes no order"):
        function.indices("shapley", order=2)


def test_truncation_keeps_the_constant_and_the_largest():
    function = SetFunction.from_mapping(
        3, {(): 0.1, (0,): -3.0, (1,): 0.5, (0, 1): 2.0}, basis="kept"
    )
    assert function.truncate(2).to_mapping() == {(): 0.1, (0,): -3.0, (0, 1): 2.0}


def test_frames_name_units_and_put_the_largest_first():
    function = SetFunction.from_mapping(3, {(0,): 1.0, (0, 2): -2.0}, basis="kept")
    frame = function.to_pandas(["a", "b", "c"])
    assert frame["units"].tolist() == ["a × c", "a"]
    assert frame["order"].tolist() == [2, 1]


def test_saved_functions_come_back(tmp_path):
    function = random_function(2, p=0.9)
    function.save(tmp_path / "function.json")
    assert SetFunction.load(tmp_path / "function.json").to_mapping() == function.to_mapping()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "refused"),
        ('{"schema": "mechspex.set_function/9"}', "mechspex.set_function/9"),
        ('{"schema": "mechspex.set_function/1"}', "incomplete"),
        ("[" * 100_000, "refused"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, complaint):
    path = tmp_path / "function.json"
    path.write_text(content)
    with pytest.raises(Refused, match=complaint):
        SetFunction.load(path)


def test_malformed_functions_are_refused():
    with pytest.raises(ShapeError, match=r"\[2\] for 1 terms"):
        SetFunction(3, ((0,),), np.ones(2), "kept")
    with pytest.raises(Refused, match="listed twice"):
        SetFunction(3, ((0,), (0,)), np.ones(2), "kept")
    with pytest.raises(Refused, match="outside the units 0 … 2"):
        SetFunction(3, ((3,),), np.ones(1), "kept")
    with pytest.raises(Refused, match="sorted"):
        SetFunction(3, ((1, 0),), np.ones(1), "kept")
    with pytest.raises(Refused, match="expands into 2\\^21"):
        SetFunction(30, (tuple(range(21)),), np.ones(1), "kept").to_basis("fourier")
    with pytest.raises(ShapeError, match=r"\[1, 4\], expected \[mask, 3\]"):
        SetFunction(3, ((0,),), np.ones(1), "kept").predict(np.ones((1, 4), dtype=bool))


def test_a_thousand_terms_over_46080_units_cost_kilobytes():
    rng = np.random.default_rng(0)
    pairs = {tuple(sorted(rng.choice(46_080, 2, replace=False).tolist())) for _ in range(1000)}
    function = SetFunction.from_mapping(46_080, dict.fromkeys(pairs, 1.0), basis="kept")
    assert len(str(function.to_dict())) < 50_000
    assert function.predict(np.ones((2, 46_080), dtype=bool)).tolist() == [len(pairs)] * 2


def of_outputs(seed=0, n_outputs=3, basis: Basis = "fourier", p=0.7):
    one = random_function(seed, p)
    scales = np.random.default_rng(seed).normal(size=(len(one), n_outputs))
    return SetFunction(N, one.terms, one.coefficients[:, None] * scales, basis, p)


@pytest.mark.parametrize("basis", BASES)
def test_an_output_is_a_function_of_its_own_and_the_function_is_their_mean(basis):
    several = of_outputs(basis=basis)
    assert several.n_outputs == 3
    alone = [several.output(number) for number in range(3)]
    assert all(one.n_outputs == 1 and one.terms == several.terms for one in alone)
    by_output = np.stack([one.predict(MASKS) for one in alone], axis=1)
    assert np.allclose(several.predict_outputs(MASKS), by_output)
    assert np.allclose(several.predict(MASKS), by_output.mean(axis=1))
    assert np.allclose(several.coefficients, several.output_coefficients.mean(axis=1))
    assert several[several.terms[2]] == pytest.approx(several.output_coefficients[2].mean())


@pytest.mark.parametrize("basis", BASES)
def test_a_change_of_basis_changes_no_output(basis):
    several = of_outputs()
    changed = several.to_basis(basis, 0.4)
    assert np.allclose(changed.predict_outputs(MASKS), several.predict_outputs(MASKS))


def test_truncation_ranks_by_all_outputs_where_the_mean_cancels():
    mapping = {(): np.zeros(2), (0,): np.array([3.0, -3.0]), (1,): np.array([1.0, 1.0])}
    function = SetFunction.from_mapping(2, mapping, basis="kept")
    assert function.to_mapping()[0,] == 0
    assert function.truncate(1).terms == ((), (0,))


def test_one_coefficient_a_term_is_one_output_and_other_shapes_are_refused():
    function = SetFunction(3, ((0,), (1,)), np.array([1.0, 2.0]), "kept")
    assert function.output_coefficients.shape == (2, 1)
    assert function.predict_outputs(np.ones((4, 3), dtype=bool)).shape == (4, 1)
    with pytest.raises(ShapeError, match=r"\[2, 1, 1\] for 2 terms"):
        SetFunction(3, ((0,), (1,)), np.ones((2, 1, 1)), "kept")
    with pytest.raises(ValueError, match="read-only"):
        function.output_coefficients[0] = 9.0


def test_the_same_function_over_more_units():
    several = of_outputs()
    units = [1, 4, 7, 8, 11, 14]
    wide = several.over(units, 16)
    masks = np.random.default_rng(0).random((50, 16)) < 0.5
    assert np.allclose(wide.predict_outputs(masks), several.predict_outputs(masks[:, units]))
    assert wide.terms[-1] == tuple(units[i] for i in several.terms[-1])


def test_several_outputs_are_saved_and_the_older_schema_is_read(tmp_path):
    several = of_outputs()
    several.save(tmp_path / "function.json")
    back = SetFunction.load(tmp_path / "function.json")
    assert back.terms == several.terms
    assert np.array_equal(back.output_coefficients, several.output_coefficients)
    older = random_function(3).to_dict() | {"schema": "mechspex.set_function/1"}
    older["coefficients"] = [row[0] for row in older["coefficients"]]
    assert SetFunction.from_dict(older).to_mapping() == random_function(3).to_mapping()
