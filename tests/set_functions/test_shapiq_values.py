"""shapiq, where it is installed: our answers in its form, and its games under our masks."""

import sys

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.masks import all_masks
from mechspex.errors import Refused

# f = 1 + 2·m₀m₁ − m₂ + 3·m₀m₁m₂
FUNCTION = mx.SetFunction.from_mapping(
    4, {(): 1.0, (0, 1): 2.0, (2,): -1.0, (0, 1, 2): 3.0}, basis="kept"
)


class Game:
    """What is used of a game of shapiq."""

    n_players = 3
    player_name_lookup: dict[str, int] = {"salt": 1}  # noqa: RUF012

    def __call__(self, coalitions):
        return 2.0 * (coalitions[:, 0] & coalitions[:, 1]) - coalitions[:, 2]


def test_a_game_is_a_value_function_whose_units_are_its_players():
    values = mx.ShapiqGame(Game())
    assert values.units.names == ("player 0", "salt", "player 2")
    found = mx.explain(values)
    assert found.function.to_basis("kept")[(0, 1)] == pytest.approx(2.0)
    with pytest.raises(Refused, match=r"give a shapiq\.Game"):
        mx.ShapiqGame(lambda masks: masks[:, 0])  # pyright: ignore[reportArgumentType]


def test_without_shapiq_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(Refused, match=r"pip install 'shapiq>=1\.3"):
        FUNCTION.to_shapiq()
    with pytest.raises(Refused, match="choose one of SV, BV"):
        FUNCTION.to_shapiq("shap")


def load():
    # Its own warnings are not ours to mend.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("shapiq")


def players(shapiq):
    class Ours(shapiq.Game):
        def __init__(self):
            super().__init__(n_players=4, normalize=True, normalization_value=1.0)

        def value_function(self, coalitions):
            return FUNCTION.predict(np.asarray(coalitions, dtype=bool))

    return Ours()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("index", "order"),
    [("SV", 1), ("BV", 1), ("Moebius", 4), ("SII", 2), ("k-SII", 2), ("FBII", 2)],
)
def test_our_indices_are_those_that_shapiq_computes_from_all_coalitions(index, order):
    shapiq = load()
    computed = shapiq.ExactComputer(players(shapiq), n_players=4)(index=index, order=order)
    ours = FUNCTION.to_shapiq(index, 2)
    for term in [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (1, 2), (2, 3)][: 4 if order == 1 else 8]:
        assert ours[term] == pytest.approx(computed[term], abs=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_efficient_indices_sum_to_the_behaviour_and_plots_take_them():
    load()
    behaviour = 4.0
    for index in ("SV", "k-SII", "Moebius"):
        ours = FUNCTION.to_shapiq(index)
        assert ours.baseline_value == pytest.approx(1.0)
        parts = [value for term, value in ours.dict_values.items() if term]
        assert sum(parts) == pytest.approx(behaviour)
    found = mx.explain(lambda m: FUNCTION.predict(m), units=mx.parts("abcd"))
    drawn = found.to_shapiq().plot_network(feature_names=list("abcd"), show=False)
    assert drawn is not None


@pytest.mark.filterwarnings("ignore")
def test_a_game_of_shapiq_is_explained_as_any_function():
    shapiq = load()
    values = mx.ShapiqGame(players(shapiq))
    truth = FUNCTION.predict(all_masks(4)) - 1.0
    assert values(all_masks(4))[:, 0] == pytest.approx(truth)
    found = mx.explain(values).function.to_basis("kept")
    assert found[(0, 1, 2)] == pytest.approx(3.0)
