"""The table of kinds: names, hook points, shapes and counts all follow from one entry."""

import pytest

from mechspex.core.kinds import KINDS, UnitKind, find_kind, kind_of_name, listed_kinds
from mechspex.core.units import Unit, UnitSet, parts
from mechspex.errors import ModelError, Refused
from mechspex.models.shape import Shape, kinds_of

SHAPE = Shape("some", n_layers=3, n_heads=2, d_mlp=5)


LISTED = [kind for kind in listed_kinds() if not kind.labelled]


@pytest.mark.parametrize("kind", LISTED, ids=lambda kind: kind.kind)
def test_the_name_of_a_unit_says_its_kind_and_no_other(kind):
    for position in (None, 0, 12, -1):
        name = Unit(kind.kind, 3, 1 if kind.numbered else 0, position).name
        assert [other.kind for other in KINDS.values() if other.is_name(name)] == [kind.kind]
        assert kind_of_name(name) == kind.kind
        assert kind_of_name(f"x{name}") is None
        assert kind_of_name(f"{name}x") is None


@pytest.mark.parametrize("kind", LISTED, ids=lambda kind: kind.kind)
def test_units_of_a_model_are_all_layers_times_all_numbers(kind):
    per_layer = {"head": 2, "mlp": 1, "neuron": 5}.get(kind.kind) or kind.per_layer(SHAPE)
    units = SHAPE.of_kind(kind.kind)
    assert len(set(units.names)) == len(units) == 3 * per_layer
    assert units == SHAPE.units(kind.asked_for)
    assert SHAPE.units([unit.name for unit in units]) == units


def test_hook_points_and_axes():
    known = ("head", "mlp", "neuron", "part")
    points = {name: (KINDS[name].hook_point(4, {}), KINDS[name].axis) for name in known}
    assert points == {
        "head": ("blocks.4.attn.hook_z", 2),
        "mlp": ("blocks.4.mlp.hook_out", None),
        "neuron": ("blocks.4.mlp.hook_post", 2),
        "part": (None, None),
    }
    moved = {"hook_mlp_out": "mlp.out.hook_out"}
    assert KINDS["mlp"].hook_point(4, moved) == "blocks.4.mlp.out.hook_out"
    assert KINDS["head"].hook_point(4, moved) == "blocks.4.attn.hook_z"
    assert [name for name in known if KINDS[name].joined] == ["head"]


def test_what_a_model_lacks_is_refused():
    bare = Shape("bare", n_layers=2, n_heads=2, d_mlp=None, attention_only=True)
    for kind in ("mlp", "neuron"):
        with pytest.raises(ModelError, match="bare is attention-only"):
            bare.of_kind(kind)
    with pytest.raises(ModelError, match="parts do not follow from a model"):
        SHAPE.of_kind("part")
    with pytest.raises(Refused, match="no kind of unit is called 'haed'; choose head, mlp"):
        UnitSet((Unit("haed", 0, 0),))


# Kinds that are to come must find a place in the table as it is.
TO_COME = [
    UnitKind("attention", "attentions", "L{layer}ATTN", "blocks.{layer}.attn.hook_out",
             "row pos d_model", count=lambda sizes: 1),
    UnitKind("embedding", "embeddings", "L{layer}EMBED", "hook_embed", "row pos d_model",
             count=lambda sizes: 1, n_layers=lambda sizes: 1),
    UnitKind("feature", "features", "L{layer}F{number}"),
    UnitKind("word", "words"),
    UnitKind("example", "examples"),
]  # fmt: skip


@pytest.mark.parametrize("kind", TO_COME, ids=lambda kind: kind.kind)
def test_a_new_kind_is_one_entry(kind, monkeypatch):
    monkeypatch.setitem(KINDS, kind.kind, kind)
    assert find_kind(kind.kind) is kind
    label = "salt" if kind.labelled else ""
    units = UnitSet((Unit(kind.kind, 1, 0, None, label), Unit("head", 0, 0)))
    assert UnitSet.from_list(units.to_list()) == units
    assert units.columns([units.names[0]]) == (0,)
    assert units.description == f"1 {kind.plural} + 1 heads"
    assert units.names[0] == (label or kind.named.format(layer=1, number=0))
    if kind.count is None:
        with pytest.raises(ModelError, match="list them yourself"):
            SHAPE.of_kind(kind.kind)
    else:
        assert kinds_of(f"heads+{kind.asked_for}")[0] == [(KINDS["head"], None), (kind, None)]
        n_layers = {"attention": 3, "embedding": 1}[kind.kind]
        assert len(SHAPE.units(kind.asked_for)) == n_layers


def test_labels_are_no_names_of_other_kinds():
    units = parts(["L0H1", "salt"])
    assert units.columns(["L0H1", "salt"]) == (0, 1)
    assert [unit.kind for unit in units] == ["part", "part"]
