"""Laws that every result keeps; a test calls `check_laws` with one of them."""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from figure_laws import check_readable

from mechspex.core.json_values import plain
from mechspex.core.result import Result, same
from mechspex.core.statistics import Estimate
from mechspex.errors import Refused
from mechspex.figures.style import Picture

# What stands where something else should.
JUNK = ({"junk": 1}, "junk", None, -1, 0.5, [], [[1, "junk"]], True)
# Places of a record that are damaged, at most.
_PLACES = 60


def check_laws(result: Result, folder: Path) -> None:
    """Check that a result is a table, text, HTML and JSON, and that its copies are equal.

    Args:
        folder: an empty one.
    """
    assert isinstance(result.to_pandas(), pd.DataFrame)
    assert json.dumps(plain(result.to_dict()), allow_nan=False)
    assert str(result).strip()
    assert repr(result).startswith(f"{type(result).__name__}(")
    assert "\n" not in repr(result)
    assert f"<p>{escape(result.in_short)}</p>" in result._repr_html_()

    record = through_json(result)
    again = type(result).from_dict(record)
    assert again == result, "the copy out of its record is equal"
    assert hash(again) == hash(result)
    assert str(again) == str(result)
    assert same(plain(again.to_dict()), plain(result.to_dict()))
    result.save(folder / "result.json")
    assert type(result).load(folder / "result.json") == result, "and so is the one out of a file"

    check_picture(result)
    check_equality(result)
    check_refusals(type(result), record)
    assert again == type(result).from_dict(record), "damaging copies of the record left it alone"


def check_picture(result: Result) -> None:
    """Where a result has a picture it can be read, or the result says why it has none."""
    plot = getattr(result, "plot", None)
    if plot is None:
        return
    try:
        figure = plot()
    except Refused:
        return
    check_readable(figure)
    assert isinstance(figure, Picture), "a notebook shows it"


def through_json(result: Result) -> dict[str, Any]:
    """A result's record as another process reads it."""
    return json.loads(json.dumps(plain(result.to_record()), allow_nan=False))


def check_equality(result: Result) -> None:
    """A result equals itself and no other thing; a changed number makes another result of it."""
    assert result == copy.copy(result)
    for other in (None, 1, "result", np.zeros(3), pd.DataFrame({"a": [1, 2]})):
        assert (result == other) is False
        assert result != other
    others = list(changed(result))
    assert others, "there is a number to change"
    for other in others:
        assert other != result


def changed(result: Any) -> Iterator[Any]:
    """Copies of a result, each with one number changed."""
    for field in fields(result):
        value = getattr(result, field.name)
        if not field.compare or isinstance(value, bool) or field.name == "n_units":
            continue
        floats = isinstance(value, np.ndarray) and value.dtype.kind == "f"
        if (floats and np.isfinite(value).any()) or isinstance(value, int):
            yield replace(result, **{field.name: value + 1})
        elif isinstance(value, float) and value == value:
            yield replace(result, **{field.name: 0.8 * value + 0.03})
        elif isinstance(value, Estimate):
            yield replace(result, **{field.name: replace(value, low=value.low - 1)})
        elif isinstance(value, Mapping) and any(isinstance(v, float) for v in value.values()):
            yield replace(result, **{field.name: dict.fromkeys(value, 1e3)})


def check_refusals(kind: type[Result], record: dict[str, Any]) -> None:
    """A record that is damaged gives `Refused` or a result, and no other error."""
    for other in (None, [], "junk", 3, {"schema": "mechspex.other/1"}):
        refused(kind, other)
    assert any(refused_or_result(kind, without(record, key)) is None for key in record)
    places = list(inside(record))
    rng = np.random.default_rng(0)
    for number in rng.permutation(len(places))[:_PLACES]:
        damaged = copy.deepcopy(record)
        *way, last = places[number]
        holder: Any = damaged
        for step in way:
            holder = holder[step]
        holder[last] = JUNK[int(rng.integers(len(JUNK)))]
        refused_or_result(kind, damaged)


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


def inside(value: Any, way: tuple = ()) -> Iterator[tuple]:
    """Every place of a record, as the keys that lead there."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield (*way, key)
        yield from inside(value[key], (*way, key))


def refused(kind: type[Result], record: Any) -> None:
    assert refused_or_result(kind, record) is None


def refused_or_result(kind: type[Result], record: Any) -> Result | None:
    """The result of a record, None where it is refused; any other error fails the test."""
    try:
        return kind.from_dict(record)
    except Refused:
        return None
