"""Columns of texts as people hold them: lists, tuples, columns of a table, arrays."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from mechspex.core.errors import TaskError


def texts_in(label: str, column: Any) -> tuple[str, ...]:
    """One text a prompt.

    Args:
        label: what the texts are, such as ``prompts``.
        column: a list, a tuple, a column of a table or an array of texts.

    Raises:
        TaskError: anything else, or something there that is no text.
    """
    return tuple(_text(label, number, item) for number, item in enumerate(_items(label, column)))


def several_in(label: str, column: Any) -> tuple[str | tuple[str, ...], ...]:
    """One text a prompt, or several; a list of one is its text.

    Args:
        label, column: see `texts_in`; each item may be a list of texts itself.

    Raises:
        TaskError: an item without texts, or for the reasons of `texts_in`.
    """
    return tuple(_several(label, number, item) for number, item in enumerate(_items(label, column)))


def spans_in(label: str, column: Any) -> tuple[Mapping[str, Any], ...]:
    """The named spans of each prompt.

    Args:
        label, column: see `texts_in`; each item is {name: a piece of the prompt}.

    Raises:
        TaskError: an item that is no such mapping.
    """
    items = _items(label, column)
    for number, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise TaskError(
                f"prompt {number} has {_short(item)} among the {label}; give {{name: a piece of "
                "its text}, which may be empty: {}"
            )
    return tuple(items)


def _items(label: str, column: Any) -> list[Any]:
    if isinstance(column, str):
        raise TaskError(f"{label} = {column!r} is one string; give a list of strings")
    if isinstance(column, Mapping | Set):
        raise TaskError(
            f"{label} is a {type(column).__name__}, which does not say which stands for which "
            "prompt; give a list of strings"
        )
    try:
        return list(column)
    except TypeError:
        raise TaskError(f"{label} = {_short(column)} is no list; give a list of strings") from None


def _several(label: str, number: int, item: Any) -> str | tuple[str, ...]:
    if not isinstance(item, list | tuple) and not hasattr(item, "__array__"):
        return _text(label, number, item)
    texts = tuple(_text(label, number, text) for text in _listed(item))
    if not texts:
        raise TaskError(f"prompt {number} has an empty list of {label}; give one")
    return texts[0] if len(texts) == 1 else texts


def _listed(item: Any) -> list[Any]:
    """The items of a list or an array; of a single value in an array, the value."""
    return [item] if getattr(item, "ndim", 1) == 0 else list(item)


def _text(label: str, number: int, item: Any) -> str:
    if isinstance(item, str):
        return str(item)  # an array's own kind of string, too
    if item is None or (isinstance(item, float) and item != item) or str(item) == "<NA>":
        there = f"nothing ({item})"
    else:
        there = _short(item)
    raise TaskError(
        f"prompt {number} has {there} among the {label}, where a text is needed; give it a text "
        "in quotes, or leave the prompt out"
    )


def _short(item: Any) -> str:
    shown = repr(item)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
