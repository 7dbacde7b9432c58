"""One law suite for all decoders: what each of them owes its user, on planted functions."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import Term
from mechspex.decoders import (
    DECODERS,
    Additive,
    Automatic,
    Decoder,
    Kernel,
    Mean,
    ProxySpex,
    Pursuit,
    compare,
    decode,
)
from mechspex.decoders.spex.design import SpexDesign
from mechspex.errors import BudgetError, FailedMasksError, Refused, ShapeError
from mechspex.set_functions.set_function import SetFunction

N_UNITS = 8
# The decoders as they are, with a smaller grid of trees, for time.
TREES = ProxySpex(depths=(4,), rates=(0.1,), n_trees=150)
FEW_TREES = ProxySpex(depths=(3,), rates=(0.1,), n_trees=50)
SUITE: dict[str, Decoder] = DECODERS | {
    "proxyspex": TREES,
    "automatic": Automatic((Additive(), Pursuit(), FEW_TREES, Kernel(tuning_masks=150))),
}
# Unambiguous for every decoder: an additive one can be exact on the first three terms only.
SINGLES: dict[Term, float] = {(): 1.0, (0,): 2.0, (3,): -1.5, (6,): 0.7}
INTERACTIONS: dict[Term, float] = {(0, 3): 0.9, (1, 2): -1.2, (1, 4, 6): 0.6}
EVERY = sorted(DECODERS)
# Those that decode masks of any design.
ANY_DESIGN = [name for name in EVERY if name not in {"exhaustive", "spex"}]
# How closely a noise-free function is recovered, relative to its standard deviation. Trees and
# the kernel approach it, LASSO shrinks a little, the others reach it.
TOLERANCE = {"additive": 0.01, "proxyspex": 0.1, "kernel": 0.02}


def planted(decoder: str) -> SetFunction:
    terms = SINGLES if decoder == "additive" else SINGLES | INTERACTIONS
    return SetFunction.from_mapping(N_UNITS, terms, basis="fourier", keep=0.5)


def training(
    decoder: str, n_masks: int = 400, seed: int = 3
) -> tuple[np.ndarray, SpexDesign | None]:
    """Masks at p = ½ that the decoder can use, and their design if it needs one."""
    if decoder == "exhaustive":
        return all_masks(N_UNITS), None
    if decoder == "spex":
        design = SpexDesign(N_UNITS, n_masks, max_order=3, seed=seed)
        return design.masks, design
    return sample_masks(N_UNITS, n_masks, keep=0.5, seed=seed), None


@functools.cache
def recovered(name: str) -> SetFunction:
    """What a decoder says of the planted function, decoded once."""
    truth, (masks, design) = planted(name), training(name)
    return decode(masks, truth.predict(masks), decoder=SUITE[name], keep=0.5, design=design)


def coefficients(answer: SetFunction) -> dict[Term, float]:
    return answer.to_basis("fourier", 0.5).to_mapping()


def distance(one: SetFunction, other: SetFunction) -> float:
    """Largest difference of two coefficients."""
    a, b = coefficients(one), coefficients(other)
    return max(abs(a.get(term, 0.0) - b.get(term, 0.0)) for term in a | b)


def r2(values: np.ndarray, predicted: np.ndarray) -> float:
    return float(1 - ((values - predicted) ** 2).sum() / ((values - values.mean()) ** 2).sum())


@pytest.mark.parametrize("name", EVERY)
def test_a_planted_sparse_function_is_recovered(name: str):
    assert distance(recovered(name), planted(name)) < TOLERANCE.get(name, 1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_a_constant_shift_moves_only_the_empty_term(name: str):
    truth, (masks, design) = planted(name), training(name)
    shifted = truth.predict(masks) + 64.0
    before = coefficients(recovered(name))
    after = coefficients(decode(masks, shifted, decoder=SUITE[name], keep=0.5, design=design))
    assert after.pop(()) == pytest.approx(before.pop(()) + 64.0, abs=1e-3)
    terms = before | after
    assert [after.get(t, 0.0) for t in terms] == pytest.approx(
        [before.get(t, 0.0) for t in terms], abs=1e-3
    )


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("scale", [1e-4, -3e5])
def test_scaling_the_values_scales_the_answer(name: str, scale: float):
    truth, (masks, design) = planted(name), training(name)
    values = scale * truth.predict(masks)
    scaled = decode(masks, values, decoder=SUITE[name], keep=0.5, design=design)
    back = {term: c / scale for term, c in coefficients(scaled).items()}
    assert (
        distance(recovered(name), SetFunction.from_mapping(N_UNITS, back, basis="fourier")) < 1e-3
    )


# In SPEX's design a delay belongs to a unit by its number: renamed, it is another design.
@pytest.mark.parametrize("name", sorted(set(EVERY) - {"spex"}))
def test_renaming_units_renames_the_answer(name: str):
    truth, (masks, _) = planted(name), training(name)
    values = truth.predict(masks)
    order = np.random.default_rng(1).permutation(N_UNITS)
    renamed = decode(masks[:, order], values, decoder=SUITE[name], keep=0.5)
    back = {tuple(sorted(int(order[i]) for i in t)): c for t, c in coefficients(renamed).items()}
    assert (
        distance(recovered(name), SetFunction.from_mapping(N_UNITS, back, basis="fourier")) < 1e-3
    )


@pytest.mark.parametrize("name", EVERY)
def test_the_same_seed_gives_the_same_answer_and_no_global_generator_moves(name: str):
    truth, (masks, design) = planted(name), training(name, 200)
    values = truth.predict(masks) + np.random.default_rng(0).normal(size=len(masks))
    state = str(np.random.get_state())  # noqa: NPY002 - the global state is what is checked
    first, second = (
        decode(masks, values, decoder=SUITE[name], design=design, seed=5) for _ in range(2)
    )
    assert first.terms == second.terms
    assert (first.output_coefficients == second.output_coefficients).all()
    assert str(np.random.get_state()) == state  # noqa: NPY002


@pytest.mark.parametrize("name", [name for name in EVERY if name != "exhaustive"])
def test_error_falls_with_budget_under_noise(name: str):
    truth, everywhere = planted(name), all_masks(N_UNITS)
    scores = []
    for n_masks in (200 if name == "spex" else 80, 800 if name == "spex" else 500):
        masks, design = training(name, n_masks, seed=8)
        noise = np.random.default_rng(2).normal(size=n_masks)
        answer = decode(masks, truth.predict(masks) + noise, decoder=SUITE[name], design=design)
        scores.append(r2(truth.predict(everywhere), answer.predict(everywhere)))
    assert scores[1] > max(scores[0], 0.93)


@pytest.mark.parametrize("name", EVERY)
def test_outputs_share_one_support_and_keep_a_coefficient_each(name: str):
    truth, (masks, design) = planted(name), training(name)
    scales = np.random.default_rng(1).uniform(0.5, 1.5, (len(truth), 3))
    several = replace(truth, output_coefficients=truth.coefficients[:, None] * scales)
    values = several.predict_outputs(masks)
    answer = decode(masks, values, decoder=SUITE[name], keep=0.5, design=design)
    assert answer.n_outputs == 3
    assert set(truth.terms) <= set(answer.to_basis("fourier", 0.5).terms)
    tolerance = TOLERANCE.get(name, 1e-4)
    for number in range(3):
        assert distance(answer.output(number), several.output(number)) < tolerance
    np.testing.assert_allclose(
        answer.predict(masks), answer.predict_outputs(masks).mean(axis=1), atol=1e-9
    )
    assert distance(answer, several) < tolerance, "coefficients are the mean over outputs"


@pytest.mark.parametrize("name", EVERY)
def test_what_cancels_in_the_mean_is_found_in_the_outputs(name: str):
    truth, (masks, design) = planted(name), training(name)
    values = truth.predict(masks)[:, None] * np.array([1.0, -1.0])
    answer = decode(masks, values, decoder=SUITE[name], keep=0.5, design=design)
    assert np.abs(answer.predict(masks)).max() < 1e-3
    assert distance(answer.output(0), truth) < TOLERANCE.get(name, 1e-4)


@pytest.mark.parametrize("name", [name for name in EVERY if DECODERS[name].most_units is not None])
def test_of_more_units_than_a_decoder_takes_the_strongest_are_kept_and_it_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    terms = SINGLES if name == "additive" else SINGLES | {(0, 3): 0.9}
    truth = SetFunction.from_mapping(60, terms, basis="fourier", keep=0.5)
    masks = sample_masks(60, 400, seed=3)
    monkeypatch.setattr(type(SUITE[name]), "most_units", 20)
    answer = decode(masks, truth.predict(masks), decoder=SUITE[name], keep=0.5)
    assert any("the 20 of 60 units that correlate most with the values" in n for n in answer.notes)
    assert len({unit for term in answer.terms for unit in term}) <= 20
    assert distance(answer, truth) < 2 * TOLERANCE[name]
    monkeypatch.setattr(type(SUITE[name]), "most_units", 60)
    whole = decode(masks, truth.predict(masks), decoder=SUITE[name], keep=0.5)
    assert not any("correlate" in note for note in whole.notes)


def test_the_exhaustive_decoder_averages_repeated_masks():
    truth, masks = planted("exhaustive"), np.repeat(all_masks(N_UNITS), 2, axis=0)
    noise = np.tile([1.0, -1.0], len(masks) // 2)
    answer = decode(masks, truth.predict(masks) + noise, decoder="exhaustive")
    assert distance(answer, truth) < 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_too_small_a_budget_is_refused_with_the_minimum(name: str):
    minimum = DECODERS[name].minimum_masks(N_UNITS)
    masks = all_masks(N_UNITS)[-minimum:][1:]
    with pytest.raises(BudgetError, match=rf"{minimum - 1} masks .* at least {minimum}; measure 1"):
        decode(masks, np.arange(float(len(masks))), decoder=SUITE[name])
    if name == "exhaustive":
        return
    design = SpexDesign(N_UNITS, minimum, max_order=1) if name == "spex" else None
    enough = sample_masks(N_UNITS, minimum, seed=1) if design is None else design.masks
    noise = np.random.default_rng(0).normal(size=minimum)
    answer = decode(enough, noise, decoder=SUITE[name], design=design)
    assert np.isfinite(answer.predict(enough)).all()


@pytest.mark.parametrize("name", EVERY)
def test_constant_values_have_no_interactions_and_a_note(name: str):
    masks, design = training(name)
    answer = decode(masks, np.full(len(masks), 0.1), decoder=SUITE[name], design=design)
    assert answer.to_mapping() == {(): 0.1}
    assert "all values are equal" in answer.notes[0]


@pytest.mark.parametrize("name", EVERY)
def test_one_unit_is_answered_exactly(name: str):
    answer = decode(
        np.array([[True], [False], [True]]), np.array([3.0, 1.0, 5.0]), decoder=SUITE[name]
    )
    assert answer.to_basis("kept").to_mapping() == {(): 1.0, (0,): 3.0}
    with pytest.raises(BudgetError, match="only unit kept"):
        decode(np.ones((3, 1), dtype=bool), np.arange(3.0), decoder=SUITE[name], keep=0.5)


@pytest.mark.parametrize("name", EVERY)
def test_max_order_bounds_the_terms(name: str):
    truth, (masks, design) = planted(name), training(name)
    values = truth.predict(masks)
    answer = decode(masks, values, decoder=SUITE[name], max_order=2, design=design)
    assert answer.max_order <= 2


@pytest.mark.parametrize("name", ANY_DESIGN)
@pytest.mark.parametrize("keep", [0.1, 0.9])
def test_biased_designs_with_a_unit_that_never_changes(name: str, keep: float):
    """Every decoder predicts p-biased masks well, and a column that is constant does no harm."""
    terms: dict[Term, float] = {(): 3.0, (0,): 2.0, (1,): -1.0, (2, 5): 0.3 * (name != "additive")}
    truth = SetFunction.from_mapping(12, terms, basis="fourier", keep=keep)
    masks = sample_masks(12, 900, keep=keep, seed=4)
    masks[:, 11] = True
    answer = decode(masks[:600], truth.predict(masks[:600]), decoder=SUITE[name])
    assert r2(truth.predict(masks[600:]), answer.predict(masks[600:])) > 0.98


# Bad input: a typed error that names the value, its shape and the next step.
MASKS = sample_masks(4, 30)
VALUES = np.arange(30.0)


@pytest.mark.parametrize(
    ("masks", "values", "message"),
    [
        (MASKS, VALUES[:29], r"values of shape \[29\] for masks of shape \[30, 4\]"),
        (
            MASKS,
            VALUES[:, None, None],
            r"values of shape \[30, 1, 1\] for masks of shape \[30, 4\]",
        ),
        (MASKS, np.empty((30, 0)), r"values of shape \[30, 0\]"),
        (MASKS, VALUES.astype(str), r"values of shape \[30\] have dtype <U\d+, expected real"),
        (MASKS.astype(int), VALUES, r"masks of shape \[30, 4\] have dtype int64, expected bool"),
        (MASKS[0], VALUES, r"masks have shape \[4\], expected \[mask, unit\]"),
    ],
)
def test_shapes_and_dtypes_are_refused(masks: np.ndarray, values: np.ndarray, message: str):
    with pytest.raises(ShapeError, match=message):
        decode(masks, values)


def test_values_that_are_not_finite_are_refused_with_their_number():
    values = VALUES.copy()
    values[[4, 7, 9]] = np.nan, np.inf, -np.inf
    message = "3 of 30 masks have a NaN or infinite value, the first is row 4; drop those rows"
    with pytest.raises(FailedMasksError, match=message):
        decode(MASKS, values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "spectral"}, "decoder = 'spectral': choose one of additive, automatic"),
        ({"keep": 1.5}, "keep = 1.5: give a probability strictly between 0 and 1"),
        ({"max_order": 0}, "max_order = 0: give an order of at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str):
    with pytest.raises(Refused, match=message):
        decode(MASKS, VALUES, **options)


def test_masks_without_units_or_without_difference_are_refused():
    with pytest.raises(Refused, match=r"masks of shape \[30, 0\] have no units"):
        decode(np.empty((30, 0), dtype=bool), VALUES)
    with pytest.raises(Refused, match="all 30 masks keep every unit"):
        decode(np.ones((30, 4), dtype=bool), VALUES)


def test_the_exhaustive_decoder_says_what_is_missing():
    masks = np.vstack([all_masks(4)[:15], all_masks(4)[:3]])
    with pytest.raises(BudgetError, match=r"1 of the 2\^4 = 16 masks are missing"):
        decode(masks, np.arange(18.0), decoder="exhaustive")
    with pytest.raises(Refused, match="at most 20 units, not 21"):
        decode(sample_masks(21, 30), VALUES, decoder="exhaustive")


# Negative controls: where no interaction is planted, none is reported. Both decoders promise it
# up to chance (pursuit 1/√N; automatic leaves the additive baseline only on evidence), hence the
# count over several draws.
@pytest.mark.parametrize("name", ["pursuit", "automatic"])
@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_no_interactions_are_reported_where_there_are_none(name: str, signal: float):
    false = 0
    draws = 6 if name == "pursuit" else 2
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        masks = sample_masks(16, 200, keep=0.7, seed=draw)
        values = signal * masks @ rng.normal(size=16) + rng.normal(size=200)
        answer = decode(masks, values, decoder=SUITE[name])
        false += sum(len(term) > 1 for term in answer.terms)
    assert false <= 1


@pytest.mark.slow
def test_the_choice_of_automatic_is_explained():
    truth, (masks, _) = planted("pursuit"), training("pursuit", 200)
    noise = np.random.default_rng(0).normal(size=len(masks))
    samples = masks, truth.predict(masks) + noise
    comparison = compare(*samples, decoders=("additive", "pursuit"))
    assert set(comparison.scores) == {"additive", "pursuit"}
    assert comparison.chosen.name == "pursuit"
    assert comparison.r2 == comparison.scores["pursuit"] > comparison.scores["additive"] + 0.1
    answer = decode(*samples, decoder=Automatic((DECODERS["additive"], DECODERS["pursuit"])))
    assert answer.notes[0] == f"automatic: {comparison}"
    assert answer.notes[0].startswith("automatic: pursuit (cross-validated R² 0.")
    assert answer.terms == decode(*samples, decoder=comparison.chosen).terms


@pytest.mark.parametrize(("noise", "others_asked"), [(0.01, False), (0.2, True)])
def test_a_decoder_that_is_as_good_as_exact_ends_the_comparison(noise: float, others_asked: bool):
    masks = sample_masks(8, 200)
    values = 2.0 * masks[:, 1] - 3.0 * (masks[:, 4] & masks[:, 6])
    values = values + noise * np.random.default_rng(0).normal(size=200)
    comparison = compare(masks, values, decoders=("additive", "pursuit", FEW_TREES))
    assert ("proxyspex" in comparison.scores) is others_asked
    assert comparison.chosen.name == "pursuit"
    assert comparison.scores["additive"] < 0.95


def test_a_mean_of_decoders_is_the_mean_of_their_functions():
    truth, (masks, _) = planted("pursuit"), training("pursuit")
    values = truth.predict(masks) + np.random.default_rng(0).normal(size=len(masks))
    parts: tuple[Decoder, ...] = DECODERS["additive"], DECODERS["pursuit"]
    together = decode(masks, values, decoder=Mean(parts)).predict(masks)
    alone = [decode(masks, values, decoder=part).predict(masks) for part in parts]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-10)


def test_many_masks_are_solved_in_the_space_of_terms():
    truth, (masks, _) = planted("kernel"), training("kernel")
    values = truth.predict(masks)
    answer = decode(masks, values, decoder=Kernel(solved_masks=300), keep=0.5)
    assert distance(answer, truth) < TOLERANCE["kernel"]
