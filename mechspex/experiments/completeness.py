"""Whether a circuit loses what the whole model loses, whatever of it is taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from mechspex.circuits.by_size import circuits_by_size
from mechspex.components.component_values import ComponentValues
from mechspex.core.masks import all_masks, keep_only
from mechspex.core.statistics import Estimate, ratio_estimator
from mechspex.core.units import Term
from mechspex.core.value_function import ValueFunction
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.reproduction import Axes
from mechspex.experiments.unit_scores import largest_terms
from mechspex.models.load_model import Model, load_model
from mechspex.models.units import heads
from mechspex.runs.run import Run
from mechspex.tasks.load_task import load_task
from mechspex.tasks.task import Task
from mechspex.truth import known_model
from mechspex.truth.brute_force import exact_terms

CIRCUIT, NAIVE = "searched circuit", "strongest single heads"
ONE_OF_A_KIND, ALL_OF_A_KIND = "backup: one head of a kind", "backup: all heads of the truth"
NOTHING, SINGLE, RANDOM, GREEDY, EVERY = (
    "K empty", "K one head", "K at random", "K found greedily", "every K",
)  # fmt: skip
SIZE = 12
# The smallest faithful circuit keeps so much of the value; terms below this share are nothing.
_FAITHFUL, _COUNTED = 0.9, 0.01

Values = Callable[[np.ndarray], Float[np.ndarray, "mask prompt"]]
Sets = Sequence[tuple[str, Term]]


def both_sides(values: Values, n_units: int, members: Term, sets: Sequence[Term]) -> np.ndarray:
    """F(C∖K) and F(M∖K) of each K on every prompt, ``[2, set, prompt]`` (Wang et al. 2022, section
    4.2).

    Args:
        values: values of masks.
        n_units: the units of the whole model M.
        members: the circuit C.
        sets: some of its members each, K.
    """
    inside = keep_only(n_units, [[i for i in members if i not in gone] for gone in sets])
    whole = keep_only(n_units, [[i for i in range(n_units) if i not in gone] for gone in sets])
    both = values(np.concatenate([inside, whole])).astype(np.float64)
    return both.reshape(2, len(sets), -1)


def greedy_sets(values: Values, n_units: int, members: Term) -> Iterator[Term]:
    """K, one member more at a time: the one that widens |F(C∖K) − F(M∖K)| most, while one does."""
    chosen, widest = (), 0.0
    while len(chosen) < len(members):
        sets = [tuple(sorted((*chosen, i))) for i in members if i not in chosen]
        inside, whole = both_sides(values, n_units, members, sets).mean(axis=2)
        gaps = np.abs(inside - whole)
        if not gaps.max() > widest:
            return
        chosen, widest = sets[int(gaps.argmax())], float(gaps.max())
        yield chosen


def _circuits(model: Model, asked: Asked, n_prompts: int) -> list[dict[str, Any]]:
    """The members of both circuits, from the prompts that may be searched."""
    searched, _ = _tasks(model, asked, n_prompts)
    units = heads(model)
    values = ComponentValues(model, searched, units, "mean", precision="auto")
    n_units, size = len(units), min(SIZE, len(units) // 2)
    whole = np.ones((1, n_units), dtype=bool)
    with Run.open(None) as run:
        recorded = run.record(values)
        found = circuits_by_size(
            recorded,
            [size],
            n_masks=1_000 if asked.full else 300,
            decoder="kernel",
            seed=asked.seed,
        )
        alone = recorded(~np.eye(n_units, dtype=bool)) - recorded(whole)
    strongest = np.argsort(alone.mean(axis=1), kind="stable")[:size]
    return [
        {"circuit": name, "members": sorted(int(i) for i in members)}
        for name, members in ((CIRCUIT, found.matching[size]), (NAIVE, strongest))
    ]


def _tasks(model: Model, asked: Asked, n_prompts: int) -> tuple[Task, Task]:
    """The prompts that may be searched, and those that circuits are scored on."""
    drawn = load_task(asked.task, model, n_prompts=8 + n_prompts, seed=asked.seed)
    searched, held_out = drawn.split(8, n_prompts)
    return searched, held_out


def _sets(members: Term, n_random: int, greedy: Iterator[Term], seed: int) -> Sets:
    rng = np.random.default_rng((seed, len(members)))
    drawn = rng.random((n_random, len(members))) < 0.5
    return [
        (NOTHING, ()),
        *((SINGLE, (i,)) for i in members),
        *((RANDOM, tuple(np.array(members)[row].tolist())) for row in drawn),
        *((GREEDY, gone) for gone in greedy),
    ]


def _measured(model: Model, asked: Asked, name: str, members: Term) -> list[dict[str, Any]]:
    """Both sides of every K on the held-out prompts; K found greedily on the others."""
    n_prompts, n_random = (64, 400) if asked.full else (24, 40)
    searched, held_out = _tasks(model, asked, n_prompts)
    units = heads(model)
    quick = ComponentValues(model, searched, units, "mean", precision="auto")
    values = ComponentValues(model, held_out, units, "mean")
    greedy = greedy_sets(quick, len(units), members)
    sets = _sets(members, n_random, greedy, asked.seed)
    both = both_sides(values, len(units), members, [gone for _, gone in sets])
    panel = f"{name}, {len(members)} of {len(units)} heads"
    return _rows(panel, sets, both, units.names)


def _rows(panel: str, sets: Sets, both: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "panel": panel, "series": kind, "x": inside.mean(), "y": whole.mean(), "low": None,
            "high": None, "taken": " ".join(names[i] for i in gone),
            "gap": (inside - whole).tolist(), "whole": whole.tolist() if not gone else None,
        }
        for (kind, gone), inside, whole in zip(sets, *both, strict=True)
    ]  # fmt: skip


def smallest_faithful(values: ValueFunction, table: np.ndarray) -> Term:
    """The smallest set of units that alone keeps nearly all of the value, the best of its size."""
    masks, mean = all_masks(values.n_units), table.mean(axis=1)
    floor, whole = mean[~masks.any(axis=1)][0], mean[masks.all(axis=1)][0]
    share = (mean - floor) / (whole - floor)
    sizes = masks.sum(axis=1)
    size = sizes[share >= _FAITHFUL].min()
    best = int(np.argmax(np.where(sizes == size, share, -np.inf)))
    return tuple(np.flatnonzero(masks[best]).tolist())


def _backup(seed: int) -> list[dict[str, Any]]:
    """The right answers of a model whose truth is known: from its smallest faithful circuit, and
    from all heads of the truth."""
    values = known_model("backup").values("zero", matches=True, seed=seed)
    masks = all_masks(values.n_units)
    table = values(masks).astype(np.float64)
    scores = largest_terms(exact_terms(table))
    counted = scores > _COUNTED * np.ptp(table, axis=0).max()
    circuits = {
        ONE_OF_A_KIND: smallest_faithful(values, table),
        ALL_OF_A_KIND: tuple(np.flatnonzero(counted).tolist()),
    }
    rows = []
    for name, members in circuits.items():
        subsets = all_masks(len(members))
        sets = [(EVERY if row.any() else NOTHING, tuple(np.array(members)[row].tolist()))
                for row in subsets]  # fmt: skip
        both = both_sides(values, values.n_units, members, [gone for _, gone in sets])
        panel = f"{name}, {len(members)} of {values.n_units}"
        rows += _rows(panel, sets, both, values.units.names)
    return rows


class _Gaps:
    """The gaps of one circuit, as shares of what the whole model does."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        whole = next(row["whole"] for row in rows if row["series"] == NOTHING)
        self._share = ratio_estimator(np.array(whole), np.random.default_rng(0))

    def _of(self, kind: str) -> np.ndarray:
        return np.array([row["gap"] for row in self._rows if row["series"] == kind])

    def size(self, kind: str, over: Callable[..., Any]) -> Estimate:
        """|gap|, the mean or the largest over the sets K of a kind."""
        return self._share(self._of(kind), lambda gaps: over(np.abs(gaps), axis=0))

    def more_than(self, other: _Gaps, kind: str, over: Callable[..., Any]) -> Estimate:
        """How much larger it is than another circuit's, on the same prompts drawn again."""
        ours, theirs = self._of(kind), other._of(kind)

        def difference(gaps: np.ndarray) -> np.ndarray:
            sizes = np.abs(gaps)
            apart = over(sizes[: len(ours)], axis=0) - over(sizes[len(ours) :], axis=0)
            return np.asarray(apart)

        return self._share(np.concatenate([ours, theirs]), difference)


def _compared(says: str, ours: _Gaps, naive: _Gaps, kind: str, over: Callable[..., Any]) -> Claim:
    more = naive.more_than(ours, kind, over)
    return Claim(
        says,
        more.low > 0 if more.leaves_out_zero else None,
        f"{ours.size(kind, over):.0%} against {naive.size(kind, over):.0%}, {more:+.0%} on the "
        "same prompts",
    )


def _claims(found: dict[str, list[dict[str, Any]]]) -> tuple[Claim, ...]:
    ours, naive = _Gaps(found[CIRCUIT]), _Gaps(found[NAIVE])
    random, worst = ours.size(RANDOM, np.mean), ours.size(GREEDY, np.max)
    one, every = _Gaps(found[ONE_OF_A_KIND]), _Gaps(found[ALL_OF_A_KIND])
    unfaithful, gap, none = (
        circuit.size(kind, np.max).value
        for circuit, kind in ((one, NOTHING), (one, EVERY), (every, EVERY))
    )
    return (
        Claim(
            "With random K the circuit stays near the whole model (14% of its value in the mean)",
            True if random.high < 0.25 else False if random.low > 0.25 else None,
            f"mean gap {random:.0%}",
        ),
        _compared(
            "With random K it stays nearer in the mean than one of the strongest single heads",
            ours, naive, RANDOM, np.mean,
        ),
        _compared(
            "With one head gone the strongest single heads leave the larger gap",
            ours, naive, SINGLE, np.max,
        ),
        Claim(
            "A greedy search finds K with a large gap (87%)",
            True if worst.low > 0.5 else False if worst.high < 0.5 else None,
            f"{worst:.0%} of the whole model's value, on prompts that were not searched",
        ),
        Claim(
            "A circuit that lacks backups is faithful and not complete",
            bool(unfaithful < 1 - _FAITHFUL + 1e-6 and gap > 0.5 and none < 0.1),
            f"right answers: with one head of a kind {unfaithful:.0%} away from the whole model, "
            f"{gap:.0%} once one is taken away; with all at most {none:.0%}",
        ),
    )  # fmt: skip


_PAPER, _PAPER_NAIVE = "paper: circuit of 26 heads of GPT-2", "paper: naive circuit"


def _theirs(panel: str, what: str, pairs: Sequence[tuple[float, float]]) -> tuple[Published, ...]:
    return tuple(Published(what, y, "result files", panel, x) for x, y in pairs)


_PUBLISHED = (
    *_theirs(_PAPER, NOTHING, [(2.84, 3.30)]),
    *_theirs(_PAPER, "K one class", [(0.93, 1.53), (4.27, 5.62), (0.23, 0.30), (1.04, 1.57),
                                     (0.72, 1.52), (1.52, 2.90)]),
    *_theirs(_PAPER_NAIVE, NOTHING, [(2.86, 3.30)]),
    *_theirs(_PAPER_NAIVE, "K one class", [(0.58, 3.33)]),
    Published("mean gap, random K: circuit, naive", "0.45, 0.47", "result files"),
    Published("largest gap, random K: circuit, naive", "1.97, 1.39", "result files"),
    Published("largest gap, greedy K: circuit, naive", "3.47, 3.03", "result files"),
    Published("largest gap, greedy K, in the text", "3.09 (87%)", "stated"),
)  # fmt: skip


@experiment(FIGURES["completeness"], _PUBLISHED)
def completeness(asked: Asked) -> Measured:
    model = load_model(asked.model) if isinstance(asked.model, str) else asked.model
    n_prompts = 64 if asked.full else 24
    circuits = asked.cell({"of": "circuits"}, partial(_circuits, model, asked, n_prompts))
    found = {
        one["circuit"]: asked.cell(
            {"of": one["circuit"]},
            partial(_measured, model, asked, one["circuit"], tuple(one["members"])),
        )
        for one in circuits
    }
    known = asked.cell({"of": "backup"}, partial(_backup, asked.seed))
    for name in (ONE_OF_A_KIND, ALL_OF_A_KIND):
        found[name] = [row for row in known if row["panel"].startswith(name)]
    rows = [
        {name: value for name, value in row.items() if name not in ("gap", "whole")}
        for of_it in found.values()
        for row in of_it
    ]
    axes = Axes("F(C∖K): the circuit without K", "F(M∖K): the model without K", kind="points")
    right = Axes("right answers of the circuit without K", "of the model without K", kind="points")
    of_known = {row["panel"]: right for row in known}
    return Measured(rows, axes, _claims(found), panel_axes=of_known)
