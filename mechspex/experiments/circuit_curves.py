"""Circuits of every size: how faithful those of each method are, and both areas of the MIB
benchmark, from signed and from absolute rankings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Float

from mechspex.circuits.by_size import Climb, circuits_by_size
from mechspex.circuits.curve import Curve, scorer
from mechspex.circuits.faithfulness import faithfulness_curve, mib_sizes
from mechspex.circuits.find_circuit import check_behaviour
from mechspex.components.component_values import ComponentValues
from mechspex.core.statistics import Estimate
from mechspex.core.value_function import ValueFunction
from mechspex.decoders import decode
from mechspex.experiments.catalogue import FIGURES
from mechspex.experiments.experiment import Asked, Measured, experiment
from mechspex.experiments.paper_figure import Claim, Published
from mechspex.experiments.reproduction import Axes
from mechspex.models.load_model import Model, load_model
from mechspex.models.units import heads
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import Run
from mechspex.screening.gradient_attribution import FirstOrder
from mechspex.tasks.load_task import load_task
from mechspex.tasks.task import Task

REFERENCE = "mean"
SIGNED, ABSOLUTE = "signed", "absolute"
EXACT, CLEAN, MIDPOINT = "exact singles", "gradient, clean", "gradient, midpoint"
INTEGRATED, ADDITIVE = "gradient, integrated", "additive"
SEARCH, RANDOM = "searched sets", "random"

Effects = Float[np.ndarray, " unit"]
Circuits = Sequence[int] | Mapping[int, Sequence[int]]


class _Sizes:
    """How much is measured."""

    def __init__(self, full: bool) -> None:
        self.searched, self.held_out = (32, 64) if full else (6, 24)
        self.n_masks = 1_000 if full else 240
        self.steps = 30 if full else 5
        self.rankings = 20 if full else 3


class _Methods:
    """The circuits that each method proposes, from the prompts that may be searched."""

    def __init__(self, model: Model, task: Task, sizes: _Sizes, seed: int) -> None:
        self.model, self.task, self.sizes, self.seed = model, task, sizes, seed
        self.units = heads(model)

    @cached_property
    def exact(self) -> ComponentValues:
        """Gradients are taken in the model's own dtype."""
        return ComponentValues(self.model, self.task, self.units, REFERENCE)

    @cached_property
    def quick(self) -> ComponentValues:
        return ComponentValues(self.model, self.task, self.units, REFERENCE, precision="auto")

    def of(self, method: str) -> dict[str, list[Circuits]]:
        """{signed, absolute: circuits}; several of each at random."""
        if method == SEARCH:
            return self._searched()
        if method == RANDOM:
            rng = np.random.default_rng(self.seed)
            every = [rng.permutation(len(self.units)).tolist() for _ in range(self.sizes.rankings)]
            return {SIGNED: every, ABSOLUTE: every}
        effects: dict[str, Callable[[], Effects]] = {
            EXACT: self._singles,
            CLEAN: partial(_attributed, self.exact, 0, self.seed),
            MIDPOINT: partial(_attributed, self.exact, 30, self.seed),
            INTEGRATED: self._integrated,
            ADDITIVE: self._additive,
        }
        return rankings(effects[method]())

    def _singles(self) -> Effects:
        n_units = len(self.units)
        kept = np.concatenate([np.ones((1, n_units), dtype=bool), ~np.eye(n_units, dtype=bool)])
        values = self.quick(kept).astype(np.float64).mean(axis=1)
        return values[1:] - values[0]

    def _integrated(self) -> Effects:
        """−∫₀¹ ∂f/∂m_i(t·1) dt: all units on the way from ablated to kept at once."""
        steps = (np.arange(self.sizes.steps) + 0.5) / self.sizes.steps
        soft = np.repeat(steps[:, None], len(self.units), axis=1).astype(np.float32)
        _, gradients = self.exact.value_and_gradient(soft)
        return -gradients.astype(np.float64).mean(axis=(0, 1))

    def _additive(self) -> Effects:
        """Coefficients of the kept basis, from masks of all densities."""
        n_masks, n_units = self.sizes.n_masks, len(self.units)
        rng = np.random.default_rng((self.seed, 1))
        masks = rng.random((n_masks, n_units)) < rng.uniform(size=(n_masks, 1))
        found = decode(masks, self.quick(masks), decoder="additive", seed=self.seed)
        kept = found.to_basis("kept")
        return np.array([-kept[(unit,)] for unit in range(n_units)])

    def _searched(self) -> dict[str, list[Circuits]]:
        with Run.open(None) as run:
            attributed = _attributed(self.exact, 30, self.seed)
            found = circuits_by_size(
                run.record(self.quick),
                [size for size in mib_sizes(len(self.units)) if size < len(self.units)],
                n_masks=self.sizes.n_masks,
                decoder="kernel",
                seed=self.seed,
                climb=Climb(run.record(self.exact), attributed, 30),
            )
        return {SIGNED: [found.best], ABSOLUTE: [found.matching]}


def rankings(effects: Effects) -> dict[str, list[Circuits]]:
    """{signed: units by what their ablation takes away, absolute: by the size of that}.

    Args:
        effects: the effect of ablating each unit.
    """
    return {
        SIGNED: [np.argsort(effects, kind="stable").tolist()],
        ABSOLUTE: [np.argsort(-np.abs(effects), kind="stable").tolist()],
    }


def _attributed(values: ComponentValues, parts: int, seed: int) -> Effects:
    with Run.open(None) as run:
        return FirstOrder(parts=parts, at=0.5).singles(run.record(values), seed)


def mean_curve(scored: ValueFunction, circuits: Iterable[Circuits]) -> Curve:
    """Faithfulness over sizes; of several rankings the mean at each size.

    Args:
        scored: the model on prompts that were not searched.
        circuits: rankings, or {size: members}.
    """
    every = [faithfulness_curve(scored, one) for one in circuits]
    return _curve_of(every[0], np.mean([curve.gained for curve in every], axis=0))


def _curve_of(like: Curve, gained: Float[np.ndarray, "size output"]) -> Curve:
    """The curve of other values at the same sizes."""
    score = scorer(like.whole, 0)
    return replace(
        like,
        gained=gained,
        scores=tuple(score(row) for row in gained),
        cpr=score(gained, lambda curve: np.trapezoid(curve, like.shares, axis=0)),
        cmd=score(gained, lambda curve: np.trapezoid(np.abs(1 - curve), like.shares, axis=0)),
    )


def _cell(scored: ValueFunction, circuits: Mapping[str, list[Circuits]]) -> list[dict[str, Any]]:
    """A curve from each kind of ranking, as JSON holds it."""
    return [
        {"ranking": ranking, "curve": mean_curve(scored, of_it).to_dict()}
        for ranking, of_it in circuits.items()
    ]


def _of_reference(
    model: Model, searched: Task, held_out: Task, reference: str, seed: int
) -> list[dict[str, Any]]:
    """Circuits that the gradient finds under a reference, scored under the same one."""
    values = ComponentValues(model, searched, heads(model), reference, seed=seed)
    return _cell(values.on(held_out), rankings(_attributed(values, 30, seed)))


_BEST = "best circuits (signed ranking)"
_NEAREST = "circuits near the model (absolute ranking)"
_PANELS = {SIGNED: _BEST, ABSOLUTE: _NEAREST}
_AREAS, _AREAS_BY_REFERENCE = "areas", "areas by reference (gradient, midpoint)"
_BY_REFERENCE = "by reference (gradient, midpoint, signed)"


def _rows(
    curves: Mapping[str, Mapping[str, Curve]], panels: Mapping[str, str], areas: str
) -> Iterator[dict[str, Any]]:
    """The points of every curve, and its areas."""
    for ranking, panel in panels.items():
        for series, of_it in curves.items():
            curve = of_it[ranking]
            for share, score in zip(curve.shares, curve.scores, strict=True):
                yield _row(panel, series, share, score)
    for series, of_it in curves.items():
        for ranking in (SIGNED, ABSOLUTE):
            yield _row(areas, series, f"CPR, {ranking}", of_it[ranking].cpr)
        for ranking in (SIGNED, ABSOLUTE):
            yield _row(areas, series, f"CMD, {ranking}", of_it[ranking].cmd)


def _row(panel: str, series: str, x: float | str, score: Estimate) -> dict[str, Any]:
    return {
        "panel": panel, "series": series, "x": x, "y": score.value, "low": score.low,
        "high": score.high,
    }  # fmt: skip


def _sign(estimate: Estimate) -> bool | None:
    return estimate.low > 0 if estimate.leaves_out_zero else None


def _claims(curves: Mapping[str, Mapping[str, Curve]]) -> tuple[Claim, ...]:
    def more(one: str, other: str) -> Estimate:
        """What one method has more in CPR than another."""
        return curves[one][SIGNED].minus(curves[other][SIGNED])[0]

    def nearer(one: str, other: str) -> Estimate:
        """How much less one method's CMD is than another's."""
        return curves[other][ABSOLUTE].minus(curves[one][ABSOLUTE])[1]

    least = {
        area: min((of(name, RANDOM) for name in curves if name != RANDOM), key=lambda one: one.low)
        for area, of in (("CPR", more), ("CMD", nearer))
    }
    two_circuits = curves[INTEGRATED][SIGNED].minus(curves[INTEGRATED][ABSOLUTE])[1]
    alike = _sign(two_circuits)
    nearest, largest = nearer(INTEGRATED, CLEAN), more(EXACT, INTEGRATED)
    gained, less = more(SEARCH, MIDPOINT), nearer(SEARCH, MIDPOINT)
    return (
        Claim(
            "integrated gradients come nearer to the model than plain ones (EAP-IG and EAP)",
            _sign(nearest),
            f"CMD less by {nearest:+z.3f}; CPR more by {more(INTEGRATED, CLEAN):+z.3f}",
        ),
        Claim(
            "exact effects carry more than integrated gradients",
            _sign(largest),
            f"CPR {largest:+z.3f}; CMD less by {nearer(EXACT, INTEGRATED):+z.3f}",
        ),
        Claim(
            "every method is far from random",
            min((_sign(one) for one in least.values()), key=[False, None, True].index),
            f"least ahead in CPR {least['CPR']:+z.3f}, in CMD {least['CMD']:+z.3f}",
        ),
        Claim(
            "CPR and CMD of a row are those of one circuit (they rank by sign for one, by size for "
            "the other)",
            None if alike is None else False,
            f"CMD of the signed ranking {two_circuits:+z.3f} more than of the absolute one",
        ),
        Claim(
            "sets that are searched carry more than the units of any ranking by gradients (not "
            "asked there)",
            _sign(gained),
            f"CPR {gained:+z.3f} against the midpoint; CMD less by {less:+z.3f}",
        ),
    )


_PAPER_AREAS = "paper: areas, IOI in GPT-2"
_PAPER = {
    "edges: exact": {"CPR, signed": 2.30, "CMD, absolute": 0.02},
    "edges: EAP-IG-inputs": {"CPR, signed": 1.85},
    "edges: EAP-IG-activations": {"CPR, signed": 1.82, "CMD, absolute": 0.03},
    f"edges: {RANDOM}": {"CPR, signed": 0.25, "CMD, absolute": 0.75},
    "nodes: NAP": {"CPR, signed": 0.28, "CMD, absolute": 0.38},
    "nodes: NAP-IG": {"CPR, signed": 0.76, "CMD, absolute": 0.27},
}
_PUBLISHED = (
    *(
        Published(method, value, "stated", _PAPER_AREAS, x)
        for method, areas in _PAPER.items()
        for x, value in areas.items()
    ),
    Published(
        "random's areas", "¼ and ¾ are the last trapezoid alone: .5–1 weighs half", "computed"
    ),
    Published(
        "the first sizes", "int(size × units) is 0 for small graphs; here rounded up", "computed"
    ),
    Published("EAP-IG", "more faithful than EAP at a like overlap of nodes", "stated"),
    Published("optimal constants", "leave 11–33% of the gap of other references", "stated"),
)


@experiment(FIGURES["circuit-curves"], _PUBLISHED)
def circuit_curves(asked: Asked) -> Measured:
    model = load_model(asked.model) if isinstance(asked.model, str) else asked.model
    sizes = _Sizes(asked.full)
    drawn = load_task(asked.task, model, n_prompts=sizes.searched + sizes.held_out, seed=asked.seed)
    searched, held_out = drawn.split(sizes.searched, sizes.held_out)
    methods = _Methods(model, searched, sizes, asked.seed)
    # Rankings share many circuits, which are measured once.
    scored = RecordedValues(ComponentValues(model, held_out, methods.units, REFERENCE), None)
    check_behaviour(scored)
    names = (EXACT, CLEAN, MIDPOINT, INTEGRATED, ADDITIVE, SEARCH, RANDOM)
    references = ("zero", "resample", *(["corrupted"] if drawn.corrupted else []))
    curves = {
        name: _read(asked.cell({"method": name}, lambda name=name: _cell(scored, methods.of(name))))
        for name in names
    }
    # The midpoint's circuits are those of its own reference already.
    by_reference = {REFERENCE: curves[MIDPOINT]} | {
        name: _read(
            asked.cell(
                {"reference": name},
                partial(_of_reference, model, searched, held_out, name, asked.seed),
            )
        )
        for name in references
    }
    rows = [
        *_rows(curves, _PANELS, f"{_AREAS}, reference {REFERENCE}"),
        *_rows(by_reference, {SIGNED: _BY_REFERENCE}, _AREAS_BY_REFERENCE),
    ]
    areas = {_PAPER_AREAS, *(row["panel"] for row in rows if isinstance(row["x"], str))}
    return Measured(
        rows,
        Axes("share of the heads", "faithfulness", log=True),
        _claims(curves),
        panel_axes=dict.fromkeys(sorted(areas), Axes("", "area", kind="bars")),
    )


def _read(cells: list[dict[str, Any]]) -> dict[str, Curve]:
    return {cell["ranking"]: Curve.from_dict(cell["curve"]) for cell in cells}
