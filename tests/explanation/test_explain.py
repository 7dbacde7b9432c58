"""The workflow from a value function to validated interactions."""

import json

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.value_function import ValueFunction, as_value_function
from mechspex.decoders import Kernel, Pursuit
from mechspex.errors import (
    BudgetError,
    FailedMasksError,
    MeasurementError,
    Refused,
    RunError,
    ShapeError,
)
from mechspex.explanation.explain import strongest_terms
from mechspex.explanation.explanation import Explanation
from mechspex.set_functions.set_function import SetFunction

N = 40
UNITS = mx.parts([f"u{i}" for i in range(N)])
PLANTED = SetFunction.from_mapping(
    N,
    {(): 1.0, (0,): -3.0, (1,): -2.0, (2,): 1.5, (0, 1): 1.8, (3, 4): -1.2, (0, 2, 5): 1.0},
    basis="ablated",
)


def planted(masks):
    """The planted function, scaled a little differently for each of four outputs."""
    return PLANTED.predict(masks)[:, None] * [0.9, 1.0, 1.05, 1.1]


@pytest.fixture(scope="module")
def explanation():
    return mx.explain(planted, units=UNITS, n_masks=600, design=mx.RandomMasks(0.8), seed=0)


def test_planted_interactions_are_found_and_confirmed(explanation):
    assert explanation.r2 > 0.99
    assert explanation.additive_r2 < 0.95
    assert explanation.non_additive_share > 0.8
    found = explanation.validation
    confirmed = {t for t, holds in zip(found.terms, found.confirmed, strict=True) if holds}
    assert {(0,), (1,), (2,), (0, 1), (3, 4), (0, 2, 5)} <= confirmed
    frame = explanation.to_pandas().set_index("units")
    assert frame.loc["u0 × u1", "effect"] == pytest.approx(1.8 * 1.0125, abs=1e-3)
    assert frame.loc["u0 × u1", "recovered"] == pytest.approx(1.8 * 1.0125, abs=0.3)


def test_nothing_is_confirmed_that_was_not_planted(explanation):
    found = explanation.validation
    whole = {t for t, c in PLANTED.to_mapping().items() if c}
    for term, holds in zip(found.terms, found.confirmed, strict=True):
        assert not holds or term in whole


def test_negative_control_an_additive_function_yields_no_confirmed_interaction():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(N, 1)) * rng.normal(1, 0.1, size=(N, 4))
    found = mx.explain(lambda masks: masks @ weights, units=UNITS, n_masks=300, seed=1)
    assert found.r2 > 0.999
    assert not found.interactions()["confirmed"].any()
    assert found.singles()["confirmed"].any()


def test_terms_can_be_tested_on_fresh_outputs():
    """What stands out by chance on the outputs of the search does not on others."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(N, 16)) + 3 * (np.arange(N) < 2)[:, None]
    units = UNITS

    def on(columns):
        return mx.FunctionValues(lambda masks: masks @ weights[:, columns], units)

    found = mx.explain(on(slice(0, 8)), held_out=on(slice(8, 16)), n_masks=200, decoder="pursuit")
    assert found.validation.output_effects.shape[1] == 8
    assert np.allclose(found.validation.output_effects[0], -weights[found.validation.terms[0], 8:])
    confirmed = set(found.singles().query("confirmed")["units"])
    assert {"u0", "u1"} <= confirmed
    assert len(confirmed) <= 3
    with pytest.raises(Refused, match="held_out has UnitSet"):
        mx.explain(on(slice(0, 8)), held_out=mx.FunctionValues(planted, mx.parts(range(N))))


def test_a_decoder_of_the_users_own_is_not_mistaken_for_the_one_of_its_name(tmp_path):
    arguments = {"units": UNITS, "n_masks": 150, "run": tmp_path, "design": mx.RandomMasks(0.8)}
    plain = mx.explain(planted, **arguments, decoder="kernel")
    few = mx.explain(planted, **arguments, decoder=Kernel(n_terms=3))
    assert len(few.function) < len(plain.function)


def test_the_text_says_what_was_found(explanation):
    """Every number of the scores, and a row with its numbers for every term, strongest first."""
    text = str(explanation)
    low, high = explanation.recovery.r2_interval
    for said in (
        f"clean {explanation.clean:+.3f}   all ablated {explanation.ablated:+.3f}",
        f"held-out R² {explanation.r2:.3f} [{low:.3f}, {high:.3f}] on "
        f"{explanation.recovery.n_test} fresh masks",
        f"additive R² {explanation.additive_r2:.3f}   non-additive share "
        f"{explanation.non_additive_share:.2f}",
        f"{explanation.cost.masks:,} masks",
        "forwards",
    ):
        assert said in text
    frame = explanation.to_pandas()
    places = []
    for row in frame.to_dict("records"):
        numbers = f"{row['order']} {row['effect']:+.3f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        start = f"{row['units']} {numbers} {row['recovered']:+.3f}"
        (line,) = (line for line in text.splitlines() if " ".join(line.split()).startswith(start))
        unsure = "not confirmed" in line or "below" in line
        assert unsure == (not row["confirmed"])
        places.append(text.index(line))
    singles = frame["order"] == 1
    for alike in (singles, ~singles):
        by_place = frame[alike].assign(place=np.array(places)[alike]).sort_values("place")
        assert by_place["effect"].abs().is_monotonic_decreasing
    assert "u0 × u1" in explanation._repr_html_()


def test_markup_in_names_is_shown_as_text():
    units = mx.parts(["<script>alert(1)</script>", "b"])
    found = mx.explain(lambda masks: 1.0 * (masks[:, 0] & masks[:, 1]), units=units)
    assert "<script>" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()


def test_few_units_are_explained_exactly():
    def gate(masks):
        return 2.0 * (masks[:, 0] & masks[:, 1]) + 1.0 * masks[:, 2]

    found = mx.explain(gate, units=mx.parts("abc"))
    assert found.recovery.exact
    assert found.cost.masks == 8
    kept = found.function.to_basis("kept")
    assert {t: round(c, 9) for t, c in kept.to_mapping().items() if abs(c) > 1e-9} == {
        (0, 1): 2.0,
        (2,): 1.0,
    }
    assert found.additive_r2 < 1 == found.r2
    assert "exact: all 8 masks" in str(found)


def test_a_single_unit_has_the_exact_answer():
    found = mx.explain(lambda masks: 3.0 * masks[:, 0], units=mx.parts("a"))
    assert found.validation.effects.tolist() == [-3.0]


def test_a_constant_function_is_explained_by_a_notice():
    found = mx.explain(lambda masks: np.full(len(masks), 2.5), units=UNITS, n_masks=100)
    assert not found.validation.terms
    assert "nothing depends on the mask" in str(found)
    assert found.r2 == 1
    # Of how many outputs nothing was found is kept as well.
    two = mx.explain(lambda masks: np.full((len(masks), 2), 2.5), units=UNITS, n_masks=100)
    assert two.validation.output_effects.shape == (0, 2)
    assert mx.Explanation.from_dict(two.to_record()) == two


def test_a_target_stops_early():
    design = mx.Adaptive(mx.RandomMasks(0.8), target_r2=0.9, focused=False)
    found = mx.explain(planted, units=UNITS, design=design, decoder="pursuit")
    assert found.r2 >= 0.9
    assert found.recovery.n_train == 250


def test_the_same_seed_gives_the_same_answer():
    runs = [
        mx.explain(planted, units=UNITS, n_masks=150, seed=seed, decoder="pursuit")
        for seed in (5, 5, 6)
    ]
    first, again, other = (run.function.to_mapping() for run in runs)
    assert first == again != other


def test_a_run_is_resumed_and_can_be_loaded(tmp_path):
    asked = []

    def counted(masks):
        asked.append(len(masks))
        return planted(masks)

    counted.configuration = {"function": "planted"}  # pyright: ignore[reportFunctionMemberAccess]
    arguments = {"units": UNITS, "n_masks": 150, "run": tmp_path / "run", "decoder": "pursuit"}
    first = mx.explain(counted, **arguments)
    after_first = sum(asked)
    again = mx.explain(counted, **arguments)
    assert sum(asked) == after_first + 1, "only the shape of the outputs is asked for again"
    assert again.cost.measured == 0
    assert again.to_pandas().equals(first.to_pandas())
    other = mx.explain(counted, **{**arguments, "decoder": "additive"})
    assert other.cost.measured <= 60, "only the terms it proposes itself are new"
    assert other.function != first.function
    more = mx.explain(counted, **{**arguments, "n_masks": 200})
    assert more.cost.measured < 200, "more masks begin with the same masks"

    loaded = Explanation.load(tmp_path / "run")
    assert loaded.to_pandas().equals(more.to_pandas())
    assert str(loaded) == str(more)
    assert loaded.to_dict() == more.to_dict()
    written = json.loads((tmp_path / "run" / "configuration.json").read_text())
    assert written["settings"]["budget"] == 200
    assert set(written["settings"]["versions"]) > {"mechspex", "torch", "python"}
    assert (tmp_path / "run" / "terms.csv").read_text().startswith("units,order,effect")


def test_an_edited_function_is_refused_under_the_same_run(tmp_path):
    def version(factor):
        def values(masks):
            return factor * masks[:, 0]

        return values

    mx.explain(version(1.0), units=mx.parts("abc"), run=tmp_path)
    with pytest.raises(RunError, match="clean: 1 there, 2 here"):
        mx.explain(version(2.0), units=mx.parts("abc"), run=tmp_path)


def test_explanations_that_are_not_there_or_damaged_are_refused(tmp_path):
    with pytest.raises(Refused, match="holds no explanation"):
        Explanation.load(tmp_path)
    for content, complaint in (("{", "not JSON"), ("[]", "schema None")):
        (tmp_path / "explanation.json").write_text(content)
        with pytest.raises(Refused, match=complaint):
            Explanation.load(tmp_path)


def test_failed_masks_are_left_out_and_counted():
    def sometimes(masks):
        return np.where(masks[:, 7] | masks[:, 8], masks @ np.arange(N), np.nan)

    found = mx.explain(sometimes, units=UNITS, n_masks=300, decoder="pursuit")
    assert found.recovery.n_failed > 0
    assert found.recovery.n_train + found.recovery.n_test + found.recovery.n_failed == 400
    assert f"{found.recovery.n_failed} masks without a finite value left out" in str(found)


def test_a_value_that_is_not_finite_when_all_is_ablated_is_kept_as_null(tmp_path):
    def fails_when_empty(masks):
        return np.where(masks.any(1), masks @ np.arange(1.0, N + 1), np.nan)

    found = mx.explain(fails_when_empty, units=UNITS, n_masks=100, run=tmp_path, decoder="additive")
    assert np.isnan(found.ablated)
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert np.isnan(Explanation.load(tmp_path).ablated)


def test_terms_that_cannot_be_tested_are_said_to_be_so():
    """Every single ablation fails, as the random masks, which ablate more, do not."""

    def fails_alone(masks):
        return np.where((~masks).sum(1) == 1, np.nan, masks @ np.arange(1.0, N + 1))

    even = mx.RandomMasks(0.5)
    found = mx.explain(fails_alone, units=UNITS, n_masks=200, design=even, decoder="additive")
    assert found.recovery.n_failed == 0
    assert found.validation.failed.all()
    assert not found.validation.confirmed.any()
    assert "10 terms could not be tested" in str(found)


def test_too_many_failed_masks_are_an_error():
    def never(masks):
        return np.where(masks.all(1), 1.0, np.nan)

    with pytest.raises(FailedMasksError, match="100 of 100 held-out masks"):
        mx.explain(never, units=UNITS, n_masks=300, design=mx.RandomMasks(0.5))
    with pytest.raises(FailedMasksError, match="7 of all 8 masks"):
        mx.explain(never, units=mx.parts("abc"))


@pytest.mark.parametrize(("workflow", "most"), [(mx.explain, 3), (mx.sweep, 2)])
def test_a_clean_value_that_is_not_finite_stops_before_the_sweep(workflow, most):
    asked = []

    def broken(masks):
        asked.append(len(masks))
        return np.where(masks.all(1), np.nan, 1.0)

    with pytest.raises(MeasurementError, match="every unit kept the value is nan"):
        workflow(broken, units=UNITS)
    assert sum(asked) <= most


def test_too_small_a_budget_is_refused_before_anything_is_measured():
    asked = []

    def counted(masks):
        asked.append(len(masks))
        return masks.sum(1)

    with pytest.raises(BudgetError, match=r"n_masks = 2: decoder 'automatic' needs at least \d+"):
        mx.explain(counted, units=UNITS, n_masks=2)
    assert sum(asked) == 1, "the shape of the outputs, no more"


def test_a_density_that_leaves_no_fresh_masks_is_refused():
    with pytest.raises(BudgetError, match="measure all with n_masks = 2048"):
        mx.explain(lambda m: m.sum(1), units=mx.parts("abcdefghijk"), design=mx.RandomMasks(0.99))


def test_bad_arguments_are_refused():
    with pytest.raises(Refused, match="add units="):
        mx.explain(planted)
    with pytest.raises(Refused, match="str is no value function"):
        as_value_function("heads")
    with pytest.raises(Refused, match="target_r2 = 1.5"):
        mx.explain(planted, units=UNITS, design=mx.Adaptive(target_r2=1.5))
    with pytest.raises(Refused, match="decoder = 'magic'"):
        mx.explain(planted, units=UNITS, decoder="magic")
    with pytest.raises(Refused, match="no units"):
        mx.explain(planted, units=mx.parts([]))
    with pytest.raises(ShapeError, match=r"returned shape \[2\] for 1 masks"):
        mx.explain(lambda masks: np.zeros(len(masks) + 1), units=UNITS)


def test_any_object_of_the_seams_shape_is_a_value_function():
    class Parity:
        units = UNITS
        n_units = N
        outputs = ("parity",)

        def __call__(self, masks):
            return (-1.0) ** masks[:, [3, 5]].sum(1, keepdims=True)

    taken = as_value_function(Parity())
    assert isinstance(taken, ValueFunction)
    assert (taken.units, taken.outputs) == (UNITS, ("parity",))
    assert "Parity" in taken.configuration["function"]
    found = mx.explain(Parity(), n_masks=500, design=mx.RandomMasks(0.5), decoder="pursuit")
    assert found.r2 > 0.99
    assert found.interactions()["units"][0] == "u3 × u5"


def test_a_gpt2_of_the_users_own_goes_through_the_same_call(gpt2):
    task = mx.load_task("induction", gpt2, n_prompts=4)
    values = mx.ComponentValues(gpt2, task, mx.heads(gpt2) + mx.mlps(gpt2))
    found = mx.explain(values)
    assert found.recovery.exact
    assert found.configuration["ablation"] == "mean"
    whole = np.ones((2, 8), dtype=bool)
    whole[1, 3] = False
    clean, without = values(whole).mean(1)
    effect = found.validation.effects[found.validation.terms.index((3,))]
    assert effect == pytest.approx(without - clean, abs=1e-3)


def test_induction_is_an_interaction_of_two_heads(tiny):
    """The shipped model: a previous-token head and an induction head, of use only together."""
    task = mx.load_task("induction", tiny, n_prompts=16)
    found = mx.explain(mx.ComponentValues(tiny, task, mx.heads(tiny)))
    top = found.interactions()
    assert top["units"][0] == "L0H1 × L1H3"
    assert top["confirmed"][0]
    assert set(found.singles()["units"][:2]) == {"L0H1", "L1H3"}
    # Without either, the other does nothing: together they cost no more than the worse alone.
    assert top["effect"][0] == pytest.approx(-found.singles()["effect"].max(), rel=0.5)


def test_the_terms_of_most_variance_come_first():
    function = SetFunction.from_mapping(
        N,
        {(): 9.0, (3,): 0.1, (4,): -2.0, (1, 2): 0.5, (5, 6, 7): 1.0, (8,): 1e-9},
        basis="fourier",
    )
    assert strongest_terms(function) == [(4,), (3,), (5, 6, 7), (1, 2)]


class Rough:
    """The planted function, measured in a precision that gets it wrong by a third."""

    units, n_units, outputs = UNITS, N, ("one", "two", "three", "four")
    in_own_dtype = as_value_function(planted, UNITS)

    def __call__(self, masks):
        return (planted(masks) * 4 / 3).astype(np.float32)


@pytest.mark.parametrize("run", [None, "rough"])
def test_what_is_found_in_another_precision_is_tested_in_the_models_own(run, tmp_path):
    folder = None if run is None else tmp_path / run
    options = {"design": mx.RandomMasks(0.8), "decoder": "pursuit", "run": folder}
    found = mx.explain(Rough(), n_masks=300, **options)
    frame = found.to_pandas().set_index("units")
    assert frame.loc["u0", "effect"] == pytest.approx(-3.0 * 1.0125, abs=1e-3)
    assert frame.loc["u0", "recovered"] == pytest.approx(-4.0 * 1.0125, abs=0.4)


# ── Designs ───────────────────────────────────────────────────────────────────────────────────────

PEAK = SetFunction.from_mapping(
    40,
    {(3,): 0.5, (1, 5, 9): 1.0, (7, 9, 30): 1.0, (2, 8, 20, 31): -1.0},
    basis="fourier",
    keep=0.5,
)
FORTY = mx.parts(range(40))


@pytest.mark.parametrize("decoder", ["spex", "automatic"])
def test_spex_finds_sets_that_have_no_part_in_smaller_ones(decoder):
    found = mx.explain(PEAK.predict, units=FORTY, design="spex", n_masks=450, decoder=decoder)
    assert found.r2 > 0.999
    assert found.settings["keep"] == 0.5
    assert "3 groups × 36 delays × 2^2 bins = 432 masks" in found.settings["design"]
    assert set(PEAK.terms) == set(found.function.terms) - {()}
    even = mx.RandomMasks(0.5)
    random = mx.explain(PEAK.predict, units=FORTY, n_masks=450, design=even, decoder="pursuit")
    assert random.r2 < 0.8, "the negative control: random masks do not show them"


def test_mixed_masks_show_what_is_hardly_ever_ablated_together():
    backups = SetFunction.from_mapping(
        40, {(0,): -1.0, (1, 5, 9): -1.5, (2, 8, 20, 31): -1.0}, basis="ablated", keep=0.9
    )
    options = {"units": FORTY, "n_masks": 500, "decoder": "pursuit"}
    mixed = mx.explain(backups.predict, design="mixed", **options)
    random = mx.explain(backups.predict, **options)
    assert mixed.r2 > 0.999
    assert set(mixed.function.to_basis("ablated").terms) >= set(backups.terms)
    assert (2, 8, 20, 31) not in random.function.to_basis("ablated").terms


def test_an_adaptive_search_is_resumed_without_measuring_twice(tmp_path):
    counted = []

    def measure(masks):
        counted.append(len(masks))
        return PLANTED.predict(masks)

    measure.configuration = {"function": "planted"}  # pyright: ignore[reportFunctionMemberAccess]
    options = {"units": UNITS, "design": mx.Adaptive(), "n_masks": 600, "decoder": "pursuit"}
    first = mx.explain(measure, run=tmp_path / "run", **options)
    assert first.recovery.n_train == 600
    (tmp_path / "run" / "explanation.json").unlink()
    before = sum(counted)
    again = mx.explain(measure, run=tmp_path / "run", **options)
    assert sum(counted) == before + 1, "the clean value when the function is wrapped, no more"
    assert again.function.to_mapping() == first.function.to_mapping()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"design": "random", "decoder": "spex"}, "decoder 'spex' reads the masks of its own"),
        ({"design": "spex", "n_masks": 20}, "20"),
        ({"decoder": Pursuit(max_order=0)}, "max_order = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_designs_that_make_no_sense_are_refused_before_anything_is_measured(options, message):
    def never(masks):
        assert len(masks) == 1, "only the value with everything kept"
        return np.ones(len(masks))

    with pytest.raises(Refused, match=message):
        mx.explain(never, units=FORTY, **options)
