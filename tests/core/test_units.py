import pytest

from mechspex.core.units import Unit, UnitSet, by_order, check_same_units, parts, subsets_of
from mechspex.errors import Refused, UnknownUnitError

HEADS = UnitSet(tuple(Unit("head", layer, number) for layer in range(3) for number in range(2)))


def test_names():
    assert HEADS.names[:3] == ("L0H0", "L0H1", "L1H0")
    assert Unit("neuron", 3, 1021).name == "L3N1021"
    assert Unit("mlp", 5, 0).name == "L5MLP"
    assert Unit("head", 9, 6, 12).name == "L9H6@12"


def test_slices_sums_and_selection_keep_the_order():
    mlps = UnitSet((Unit("mlp", 0, 0), Unit("mlp", 1, 0)))
    both = HEADS[1:3] + mlps
    assert both.names == ("L0H1", "L1H0", "L0MLP", "L1MLP")
    assert both[["L1MLP", "L0H1"]].names == ("L1MLP", "L0H1")
    assert both["L1H0"].units == (Unit("head", 1, 0),)
    assert both[-1] == Unit("mlp", 1, 0)
    assert both.columns(["L0MLP", "L0H1"]) == (2, 0)
    assert both.label((0, 2)) == "L0H1 × L0MLP"
    assert Unit("mlp", 1, 0) in both
    assert both.description == "2 heads + 2 MLPs"


def test_unknown_units_are_refused_with_the_valid_range():
    with pytest.raises(UnknownUnitError, match="'L9H9'.*layers 0 … 2, heads 0 … 1"):
        HEADS["L9H9"]
    with pytest.raises(UnknownUnitError, match="flour, water"):
        parts(["flour", "water"])["salt"]
    with pytest.raises(UnknownUnitError, match="empty"):
        UnitSet()["L0H0"]


def test_of_many_names_those_like_the_unknown_one_are_told():
    layers = [(i, j) for j in range(4) for i in range(j)]
    edges = [f"L{i}H{a}→L{j}H{b}.q" for i, j in layers for a in "01" for b in "01"]
    units = HEADS + UnitSet(tuple(Unit("edge", 0, i, label=name) for i, name in enumerate(edges)))
    with pytest.raises(UnknownUnitError, match="24 edges the nearest are") as refused:
        _ = units["L1H1->L3H0.x"]
    told = str(refused.value).partition("nearest are ")[2].split(", ")
    assert told[0] == "L1H1→L3H0.q"
    assert len(told) == 6
    assert "L0H0→L1H0.q" not in told, "the first ones are not the nearest"
    with pytest.raises(UnknownUnitError, match=r"nearest are L0H1→L1H0\.q, L0H1→L1H1\.q"):
        _ = units["L0H1→L1H9.q"]


def test_duplicates_are_refused():
    with pytest.raises(Refused, match="'L0H1' is listed twice"):
        _ = HEADS + HEADS[1:2]


def test_two_things_of_other_units_are_refused():
    check_same_units("one", HEADS, "the other", UnitSet(HEADS.units))
    with pytest.raises(Refused, match="one has .*, the other .*; give both the same units"):
        check_same_units("one", HEADS, "the other", HEADS[1:])


def test_subsets_come_by_order_and_then_by_units():
    found = list(subsets_of((1, 4, 6)))
    assert found == [(), (1,), (4,), (6,), (1, 4), (1, 6), (4, 6), (1, 4, 6)]
    assert sorted([(1, 4), (6,), (), (4,)], key=by_order) == [(), (4,), (6,), (1, 4)]
    assert list(subsets_of((1, 4, 6), 1)) == found[:4]
    assert list(subsets_of((1, 4), 5)) == [(), (1,), (4,), (1, 4)]


@pytest.mark.parametrize(
    "damage", [(0, "limb"), (0, []), (1, 1.5), (2, True), (2, None), (3, [None]), (3, 1.5), (4, 7)]
)
def test_a_record_that_lists_no_units_is_refused(damage):
    units = UnitSet((Unit("head", 0, 1), Unit("part", 0, 0, None, "salt")))
    stored = units.to_list()
    assert UnitSet.from_list(stored) == units
    place, value = damage
    stored[1][place] = value
    with pytest.raises(TypeError, match="is no unit|unhashable"):
        UnitSet.from_list(stored)


def test_the_span_of_a_word_is_part_of_its_record_and_of_no_other():
    units = UnitSet((Unit("word", 0, 0, None, "Mary", (4, 8)), Unit("head", 1, 0)))
    listed = units.to_list()
    assert listed == [["word", 0, 0, None, "Mary", [4, 8]], ["head", 1, 0, None, ""]]
    assert UnitSet.from_list(listed) == units
    for span in ([4], [4, "8"], [4, 8, 9], "48", 7):
        with pytest.raises((TypeError, ValueError)):
            UnitSet.from_list([[*listed[0][:5], span]])


def test_a_label_that_no_table_can_hold_is_refused():
    with pytest.raises(Refused, match=r"'a\\ud800' holds a lone surrogate"):
        parts(["a\ud800", "b"])
    assert parts(["naïve", "🙂"]).to_list()
