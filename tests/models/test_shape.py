"""What a text names of a model's units."""

import pytest

from mechspex.errors import Refused
from mechspex.models.shape import kinds_of


def test_kinds_are_read_with_their_places_and_names_without():
    kinds, names = kinds_of("heads+mlps@S2")
    assert [(kind.asked_for, place) for kind, place in kinds] == [("heads", None), ("mlps", "S2")]
    assert not names
    kinds, names = kinds_of("L0H1,L1H3")
    assert [kind.asked_for for kind, _ in kinds] == ["heads"]
    assert names == ["L0H1", "L1H3"]


def test_a_kind_that_is_not_one_names_all_that_are():
    with pytest.raises(Refused, match=r"'haeds': choose heads, .*latents of a dictionary: mx"):
        kinds_of("haeds")
