"""Several answers beside each other: their figures, and the effects that more than one has."""

from __future__ import annotations

from typing import Any

# Rows of the common table.
_MOST_ROWS = 100


def side_by_side(sections: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the page shows of several answers together.

    Args:
        sections: the answers, each with what `section` made of it.

    Returns:
        ``figures``: a row a figure; ``effects``: a row a set of units, strongest first, with the
        exact effect in each answer. None of a single answer.
    """
    if len(sections) < 2:
        return None
    names = list(dict.fromkeys(name for one in sections for name in one["figures"]))
    figures = [
        {"name": name, "values": [one["figures"].get(name, "") for one in sections]}
        for name in names
    ]
    effects = [_by_term(one) for one in sections]
    terms = {term for of_one in effects for term in of_one}
    terms = {term for term in terms if _largest(term, effects) > 0}
    ranked = sorted(terms, key=lambda term: (-_largest(term, effects), term))
    rows = [
        {"term": " × ".join(term), "cells": [of_one.get(term) for of_one in effects]}
        for term in ranked[:_MOST_ROWS]
    ]
    return {"figures": figures, "effects": rows, "left": max(0, len(ranked) - _MOST_ROWS)}


def _by_term(one: dict[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    names = [unit["name"] for unit in one["units"]]
    found = {}
    for row in one["rows"]:
        if row["effect"] is not None:
            found[tuple(names[column] for column in row["term"])] = row
    return found


def _largest(term: tuple[str, ...], effects: list[dict[tuple[str, ...], dict[str, Any]]]) -> float:
    return max(abs(of_one[term]["effect"]) for of_one in effects if term in of_one)
