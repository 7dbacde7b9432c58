"""Experiments: what is measured for a figure of a paper, kept so that it goes on where it was."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mechspex.core.errors import Refused, RunError
from mechspex.core.json_values import checked, plain, read_json, read_number, write_json
from mechspex.core.statistics import mean_estimate
from mechspex.experiments.paper_figure import Claim, PaperFigure, Published
from mechspex.experiments.reproduction import Axes, Reproduction, points
from mechspex.runs.run import CELLS, FIGURE, run_folder

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """What an experiment measured.

    Attributes:
        rows: the table, as `Reproduction` holds it.
        axes: what its axes are called.
        claims: what the paper says, and whether it holds here.
        panel_axes: {panel: what its axes are called, where that is something else}.
        left_out: what is not measured where it ran, and why.
    """

    rows: Rows
    axes: Axes
    claims: tuple[Claim, ...] = ()
    panel_axes: Mapping[str, Axes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


@dataclass
class Asked:
    """What is asked of an experiment, and the cells that are measured already.

    Attributes:
        folder: where cells are kept; None keeps them nowhere.
        model, task: what is measured; the task of models alone.
        full: the paper's size in place of the small one.
        seed: the seed of masks, prompts and decoders.
        progress: say on stderr what is measured.
        identity: what a cell depends on beside its key: figure, settings, and the code that
            measures it.
        seconds: what the cells took that were asked for.
    """

    folder: Path | None
    model: Any
    task: str
    full: bool
    seed: int
    progress: bool
    identity: str = ""
    seconds: float = 0.0
    _cells: dict[str, Any] = field(default_factory=dict)

    def cell(self, key: Mapping[str, Any], measure: Callable[[], Rows]) -> list[dict[str, Any]]:
        """The rows of one cell: those that are kept, else measured now and kept.

        A run that was cut off goes on with the first cell that is missing.

        Args:
            key: what the cell is, beside what the whole experiment was asked.
            measure: measures its rows.
        """
        kept = self._cells.get(self._name(key))
        if kept is None:
            kept = self._keep(key, *_timed(measure))
        self.seconds += kept["seconds"]
        return [dict(row) for row in kept["rows"]]

    def cells(
        self, asked: Sequence[tuple[Mapping[str, Any], Callable[[], Rows]]], processes: int
    ) -> list[dict[str, Any]]:
        """The rows of several cells, in their order; those that are missing measured side by side.

        Args:
            asked: key and measurement of each cell, as `cell` takes them. With several processes a
                measurement is sent to one of them: a function of a module, with its arguments.
            processes: how many at a time; with one they are measured here.
        """
        missing = [one for one in asked if self._name(one[0]) not in self._cells]
        if processes > 1 and len(missing) > 1:
            # Fresh processes: one that is forked may hang in a library with threads.
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                # The last are the largest as a rule, and nothing should wait for them in the end.
                found = {pool.submit(_timed, measure): key for key, measure in reversed(missing)}
                for one in as_completed(found):
                    self._keep(found[one], *one.result())
        return [row for key, measure in asked for row in self.cell(key, measure)]

    def _name(self, key: Mapping[str, Any]) -> str:
        told = json.dumps([self.identity, plain(key)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _keep(self, key: Mapping[str, Any], rows: Rows, seconds: float) -> dict[str, Any]:
        kept = {"rows": plain([{**key, **row} for row in rows]), "seconds": seconds}
        self._cells[self._name(key)] = kept
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / CELLS, checked({"cells": self._cells}))
        return kept


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def _timed(measure: Callable[[], Rows]) -> tuple[Rows, float]:
    """The rows, and the seconds they took."""
    start = time.perf_counter()
    rows = list(measure())
    return rows, time.perf_counter() - start


_MODEL = "smollm2-135m"

_ARGS = """Args:
    model: the model, where the figure has one: a name, a folder, or a loaded one; smollm2-135m if
        not given.
    task: the task, where it has one; the figure's first if not given.
    full: the paper's size; else a small one, of minutes.
    seed: the seed of masks, prompts and decoders.
    run: where values and cells are kept, so that a run that was cut off goes on; in memory if not
        given.
    progress: say on stderr what is measured.

Returns:
    The table, what the paper says beside it, and a picture (`plot`).

Raises:
    Refused: a task or a model, where the figure has none.
"""


def experiment(
    figure: PaperFigure, published: tuple[Published, ...] = ()
) -> Callable[[Callable[[Asked], Measured]], Callable[..., Reproduction]]:
    """Makes of what measures a figure the public function that draws it again.

    Args:
        figure: which figure.
        published: the paper's numbers.
    """

    def of(measure: Callable[[Asked], Measured]) -> Callable[..., Reproduction]:
        source = hashlib.sha256(inspect.getsource(inspect.getmodule(measure)).encode())  # type: ignore[arg-type]

        def redraw(
            *,
            model: Any = None,
            task: str | None = None,
            full: bool = False,
            seed: int = 0,
            run: str | Path | None = None,
            progress: bool = False,
        ) -> Reproduction:
            if task is not None and not figure.tasks:
                raise Refused(f"task {task!r}: the figure {figure.name} has no task; leave it out")
            if model is not None and not figure.model:
                asked_for = _name(model)
                raise Refused(
                    f"model {asked_for!r}: the figure {figure.name} has no model; leave it out"
                )
            model = _MODEL if model is None else model
            chosen = task or (figure.tasks[0] if figure.tasks else "")
            settings: dict[str, Any] = {"full": full, "seed": seed}
            if figure.model:
                asked_of = {"task": chosen} if chosen else {}
                settings = {"model": _name(model), **asked_of, **settings}
            identity = json.dumps([figure.name, settings, source.hexdigest()])
            folder = None if run is None else run_folder(run)
            asked = Asked(folder, model, chosen, full, seed, progress, identity, 0.0, _kept(folder))
            start = time.perf_counter()
            measured = measure(asked)
            found = Reproduction(
                figure=figure,
                rows=points(measured.rows),
                axes=measured.axes,
                published=published,
                claims=measured.claims,
                left_out=measured.left_out,
                settings=settings,
                seconds=max(asked.seconds, time.perf_counter() - start),
                panel_axes=measured.panel_axes,
            )
            if folder is not None:
                found.write(folder)
            return found

        redraw.__name__ = redraw.__qualname__ = figure.function
        redraw.__module__ = measure.__module__
        redraw.__doc__ = f"{figure.shows}\n\n{figure.paper}. {figure.differs}\n\n{_ARGS}"
        return redraw

    return of


def mean_rows(
    panel: str, x: float | int | str, scores: Mapping[str, Sequence[float] | np.ndarray]
) -> list[dict[str, Any]]:
    """A row a series: the mean over repeats with its 95% interval, from three repeats on.

    Args:
        panel: the panel.
        x: the place.
        scores: {series: the score of each repeat}.
    """
    rows = []
    for series, each in scores.items():
        mean = mean_estimate(np.array(each, dtype=float))
        ends = (mean.low, mean.high) if len(each) > 2 else (float("nan"),) * 2
        rows.append(
            {"panel": panel, "series": series, "x": x, "y": mean.value, "low": ends[0],
             "high": ends[1]}
        )  # fmt: skip
    return rows


def _name(model: Any) -> str:
    """What a model is called: as asked for, or as it was loaded."""
    return model if isinstance(model, str) else model.cfg.model_name


def _kept(folder: Path | None) -> dict[str, Any]:
    """The cells of earlier runs in the folder.

    Raises:
        RunError: what is there is none.
    """
    if folder is None or not (folder / CELLS).exists():
        return {}
    try:
        cells = read_json(folder / CELLS)["cells"]
        return {name: _read_cell(stored) for name, stored in cells.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, Refused):
            raise
        raise RunError(
            f"{folder / CELLS} holds no cells of a figure ({error!r}); take it away and give the "
            "same command again"
        ) from None


def _read_cell(stored: dict[str, Any]) -> dict[str, Any]:
    rows = [dict(row) for row in stored["rows"]]
    return {"rows": rows, "seconds": read_number(stored["seconds"])}


def done(folder: Path) -> bool:
    """Whether a figure was drawn into the folder."""
    return (folder / FIGURE).exists()
