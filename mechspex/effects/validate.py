"""Validation: the interactions a decoder or a screen proposes, measured exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.checks import CONTEXTS, PROBABILITY, SEED
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.masks import ablate_sets, sample_masks, turn_sets
from mechspex.core.statistics import discovery_halfwidths, standard_error
from mechspex.core.terms import as_terms, columns_of
from mechspex.core.units import Term, UnitSet, by_order, subsets_of
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function, as_values
from mechspex.effects.validation import Validation
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run, as_run
from mechspex.set_functions.r_squared import rounding

# 2^12 masks a term; a larger one is not an interaction that anyone can read.
LARGEST_ORDER = 12


@door(
    value_function=as_values,
    terms=as_terms,
    level=PROBABILITY,
    contexts=CONTEXTS,
    keep=PROBABILITY,
    run=as_run,
    seed=SEED,
)
def validate(
    value_function: ValuesLike,
    terms: str | Iterable[str | Sequence[int | str]],
    *,
    level: float = 0.05,
    contexts: int = 0,
    keep: float = 0.9,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Validation:
    """Measure sets of units exactly, by factorial ablation in the otherwise whole model.

    ablated(T) = Σ_{S⊆T} (−1)^{|T|−|S|} f(all but S), from 2^{|T|} masks a term; what terms share
    is asked for once. Student's t over outputs (prompts) tests each mean effect against zero, and
    the number tested is corrected for by the false discovery rate (Benjamini & Hochberg 1995); the
    intervals are at the level that this leaves, `level` · R/m with R of m terms confirmed
    (Benjamini & Yekutieli 2005), so a term is confirmed where its interval leaves out zero. A value
    function with one output has no spread: its interval is the rounding of its values.

    All this holds for terms fixed beforehand or chosen on other outputs. Terms that were chosen
    for standing out on these very outputs are confirmed too often.

    With `contexts` the same is measured with the other units not all kept but drawn at random, and
    averaged: what the set does in a damaged model. The intervals then allow for the spread over
    contexts as well, by adding its variance to that over outputs.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> values = mx.FunctionValues(soup, mx.parts(["salt", "water", "bread"]))
    >>> mx.validate(values, [("salt", "water"), ("salt", "bread")]).effects
    array([3., 0.])

    Args:
        value_function: the value function to measure with.
        terms: sets of units, by column or by name, or as they are printed, ``"L0H1 × L1H3"``; one
            such text is one set.
        level: the expected share of false terms among the confirmed.
        contexts: random masks of the other units, at least 2, the same for every term; 0 keeps
            them all.
        keep: the probability with which a context keeps a unit.
        run: name or folder in which every value and the answer are kept, so that no mask is
            measured twice. None keeps none.
        seed: the seed of the contexts.
        progress: a progress bar on stderr.

    Raises:
        Refused: an empty or too large term, one that is listed twice, a column out of range, or a
            level outside (0, 1).
        UnknownUnitError: an unknown name.
    """
    value_function = as_value_function(value_function)
    if run is not None or progress:
        # What is part of a larger answer is kept with that.
        keeps_answer = isinstance(run, str | Path)
        with Run.open(run, progress=progress) as run:
            recorded = run.record(value_function)
            recorded.stage = "validating"
            options: dict[str, Any] = {"contexts": contexts, "keep": keep, "seed": seed}
            validation = validate(recorded, terms, level=level, **options)
        validation = replace(validation, configuration=_told(recorded))
        if keeps_answer:
            run.keep(validation)
        return validation
    units = value_function.units
    columns = tuple(_columns(term, units) for term in terms)
    for term, times in Counter(columns).items():
        if times > 1:  # it would count as so many of the sets of which false ones are a share
            name = " × ".join(units.names[column] for column in term)
            raise Refused(f"{name} is listed {times} times; list every set once")
    subsets = sorted({s for term in [(), *columns] for s in subsets_of(term)}, key=by_order)
    if contexts:
        around = sample_masks(value_function.n_units, contexts, keep=keep, seed=seed)
        among = (value_function(turn_sets(one, subsets)).astype(np.float64) for one in around)
        value = [dict(zip(subsets, rows, strict=True)) for rows in among]
        found, _ = effects_around(units, columns, around, value, keep=keep, level=level)
        return _of(value_function, found)
    measured = value_function(ablate_sets(value_function.n_units, subsets)).astype(np.float64)
    found = exact_effects(units, columns, dict(zip(subsets, measured, strict=True)), level=level)
    return _of(value_function, found)


def _of(value_function: ValueFunction, found: Validation) -> Validation:
    """The same with what its values depend on; as a part of a larger answer it is told by that."""
    if isinstance(value_function, RecordedValues):
        return found
    return replace(found, configuration=_told(value_function))


def _told(value_function: ValueFunction) -> dict[str, str]:
    """What values depend on; nothing of a function of one's own, with no task and no model."""
    told = value_function.configuration
    return told if {"task", "model"} & told.keys() else {}


def exact_effects(
    units: UnitSet,
    terms: tuple[Term, ...],
    value: Mapping[Term, Float[np.ndarray, " output"]],
    *,
    level: float = 0.05,
) -> Validation:
    """What `validate` says of `terms`, from the value with T ablated for every T ⊆ every term."""
    tables = [np.array([value[s] for s in subsets_of(term)]) for term in terms]
    effects = np.array([_effect(table) for table in tables]).reshape(len(terms), len(value[()]))
    rounded = np.array([_rounding(table) for table in tables])
    error = standard_error(effects)
    return _judged(units, terms, effects, error, effects.shape[1] - 1, rounded, level)


def exact_changes(
    units: UnitSet,
    terms: tuple[Term, ...],
    before: Mapping[Term, Float[np.ndarray, " output"]],
    after: Mapping[Term, Float[np.ndarray, " output"]],
    *,
    level: float = 0.05,
) -> Validation:
    """By how much the effects of `terms` change from one function to another, output by output.

    The tests are those of `validate`, paired by output; what the rounding of either function makes
    of a difference counts as zero. Arguments are those of `exact_effects`.
    """
    tables = [
        [np.array([value[s] for s in subsets_of(term)]) for value in (before, after)]
        for term in terms
    ]
    changes = np.array([_effect(after) - _effect(before) for before, after in tables])
    changes = changes.reshape(len(terms), len(before[()]))
    rounded = np.array([_rounding(one) + _rounding(other) for one, other in tables])
    degrees = changes.shape[1] - 1
    return _judged(units, terms, changes, standard_error(changes), degrees, rounded, level)


def effects_around(
    units: UnitSet,
    terms: tuple[Term, ...],
    around: Bool[np.ndarray, "context unit"],
    values: Sequence[Mapping[Term, Float[np.ndarray, " output"]]],
    *,
    keep: float,
    level: float = 0.05,
) -> tuple[Validation, Float[np.ndarray, "term output"]]:
    """The effects of `terms` averaged over contexts, and the values with each term ablated.

    A context z keeps some units of T and ablates the others, A. With g(F) the value of z with F
    turned over, the effect of T there is (−1)^{|A|} Σ_{F⊆T} (−1)^{|T|−|F|} g(F), so that one set of
    masks around z serves all terms.

    Args:
        units: what the terms' columns stand for.
        terms: the sets, by column.
        around: the contexts.
        values: for each of them {F: g(F)}, for every F ⊆ every term.
        keep: the probability with which a context keeps a unit.
        level: the false discovery rate.
    """
    n_contexts, n_outputs = len(around), len(values[0][()])
    effects, ablated = np.empty((2, len(terms), n_outputs))
    rounded, variance = np.empty(len(terms)), np.empty(len(terms))
    for row, term in enumerate(terms):
        table = np.array([[value[s] for value in values] for s in subsets_of(term)])
        kept = around[:, list(term)]
        each = (-1.0) ** (~kept).sum(axis=1)[:, None] * _effect(table)
        effects[row], rounded[row] = each.mean(axis=0), _rounding(table)
        variance[row] = each.mean(axis=1).var(ddof=1) / n_contexts
        left = [tuple(unit for unit in term if context[unit]) for context in around]
        ablated[row] = np.mean([value[s] for value, s in zip(values, left, strict=True)], axis=0)
    error = np.sqrt(standard_error(effects) ** 2 + variance)
    fewest = n_contexts if n_outputs == 1 else min(n_contexts, n_outputs)
    found = _judged(units, terms, effects, error, fewest - 1, rounded, level)
    return replace(found, contexts=n_contexts, keep=keep, errors=error), ablated


def _effect(table: np.ndarray) -> np.ndarray:
    """Σ_{S⊆T} (−1)^{|T|−|S|} value[S], from values ``[subset, …]`` in the order of `subsets_of`."""
    order = len(table).bit_length() - 1
    signs = [(-1.0) ** (order - len(subset)) for subset in subsets_of(tuple(range(order)))]
    with np.errstate(invalid="ignore"):  # the difference of two infinite values is no number
        return np.tensordot(np.array(signs), table, axes=1)


def _rounding(table: np.ndarray) -> float:
    """What the values' precision makes of a sum of so many of them."""
    return len(table) * rounding(table)


def _judged(
    units: UnitSet,
    terms: tuple[Term, ...],
    effects: Float[np.ndarray, "term output"],
    error: Float[np.ndarray, " term"],
    degrees: int,
    rounded: Float[np.ndarray, " term"],
    level: float,
) -> Validation:
    """Intervals and discoveries from standard errors of the mean effects."""
    mean = effects.mean(axis=1)
    # What rounding cannot tell from zero counts as zero.
    half = discovery_halfwidths(mean, error, max(1, degrees), level=level, rounding=4 * rounded)
    with np.errstate(invalid="ignore"):  # of infinite values
        intervals = np.stack([mean - half, mean + half], axis=1)
    return Validation(
        units=units,
        terms=terms,
        output_effects=effects,
        intervals=intervals,
        # A failed mask leaves NaN here, which confirms nothing.
        confirmed=np.abs(mean) > half,
        level=level,
    )


def _columns(term: str | Sequence[int | str], units: UnitSet) -> Term:
    columns = columns_of(term, units)
    if not 1 <= len(columns) <= LARGEST_ORDER:
        raise Refused(
            f"term {term} has {len(columns)} units; validate terms of 1 … {LARGEST_ORDER}"
        )
    return columns
