"""``mechspex sweeps``: the sweeps that a file declares, one after another."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.choices import Dtype, Precision
from mechspex.cli.collect import show_table
from mechspex.cli.kept import SWEPT
from mechspex.cli.output import (
    EXPERIMENT,
    OUTPUT,
    Json,
    print_answer,
    refuse_picture,
    refuse_unwritable,
    to_stderr,
)
from mechspex.cli.sweep_cell import Cell, in_short
from mechspex.cli.sweep_file import LISTS, SINGLE, Shard, cells_of, read_sweep_file
from mechspex.cli.workers import with_workers
from mechspex.core.counted import counted, time_in_words
from mechspex.core.errors import FailedMasksError, MechspexError, Refused

# Entries that are one of a few words.
_CHOICES = {"dtype": Dtype, "precision": Precision}
# Of the command's own options, those before the ones of the file: file, --dry-run, --shard.
_FIRST = 3
# Masks that tell the rate, after as many that warm up, and prompts that are enough for it.
_TIMED, _TIMED_PROMPTS = 8, 64

_Refused = list[tuple[str, MechspexError]]
"""(what tells a sweep from the others, why it cannot be)."""


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    """Splice an option for every entry of a file into a command, whose first parameter takes what
    is given of them: {entry: value}."""
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    flags = [_flag(entry, *of) for entry, of in (LISTS | SINGLE).items()]
    names = {option: entry for entry, (option, _) in (LISTS | SINGLE).items()}

    @wraps(command)
    def run(**given: Any) -> None:
        asked = {names[flag.name]: given.pop(flag.name) for flag in flags}
        command({entry: one for entry, one in asked.items() if one is not None}, **given)

    # What is spliced in stands between what is swept and what becomes of it.
    own = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in own]
    parameters = [*own[:_FIRST], *flags, *own[_FIRST:]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in parameters}
    return run


def _flag(entry: str, option: str, holds: type) -> inspect.Parameter:
    """The option that stands in the place of an entry of the file, spelled as in the file."""
    told: Any = _CHOICES.get(entry, holds)
    told = list[told] if entry in LISTS else told
    help = typer.Option(help=f"In place of {entry}.", rich_help_panel=EXPERIMENT)
    return inspect.Parameter(
        option, inspect.Parameter.KEYWORD_ONLY, default=None,
        annotation=Annotated[told | None, help],
    )  # fmt: skip


@with_workers
@_flags
def sweeps(
    instead: dict[str, Any],
    file: Annotated[Path, typer.Argument(help="A TOML file that declares the sweeps.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count masks and forwards, and time a few; no sweep.")
    ] = False,
    shard: Annotated[str | None, typer.Option(help="Only this part of the sweeps: 3/16.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="Write the table (.csv or .parquet).", rich_help_panel=OUTPUT),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw a map a sweep.", rich_help_panel=OUTPUT)
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the sweeps that a file declares: every combination of its lists, one table at the end.

    The same command goes on where it was stopped; what is done is not done again.
    """
    refuse_unwritable(csv, figure)
    refuse_picture(figure)
    cells, refused = _checked(cells_of(read_sweep_file(file) | instead))
    models = _Models()
    if shard is not None:
        n_all, part = len(cells) + len(refused), Shard.read(shard)
        cells, refused = _part(part, cells, refused, models)
        if not (cells or refused):
            to_stderr(f"shard {shard} is empty: {counted(n_all, 'sweep')} in all")
            if as_json:
                print_answer([], True)
            return
    if dry_run:
        _dry_run(cells, refused, models, as_json)
    else:
        _run(cells, refused, models, (csv, figure), as_json)


def _checked(plan: list[dict[str, Any]]) -> tuple[list[Cell], _Refused]:
    """The sweeps that can be, as far as shows without a model, and why the others cannot.

    Those that differ by a seed alone which draws nothing are one.
    """
    cells, refused, told = [], [], []
    for options in plan:
        alike = {name: option for name, option in options.items() if name != "seed"}
        if alike in told:
            continue
        try:
            cells.append(cell := Cell.of(options))
        except MechspexError as error:
            refused.append((in_short(options), error))
            continue
        if not cell.draws:
            told.append(alike)
    return cells, refused


def _part(
    part: Shard, cells: list[Cell], refused: _Refused, models: _Models
) -> tuple[list[Cell], _Refused]:
    """The sweeps of a shard, and those that cannot be of which it is the one to tell."""
    refused, counts = list(refused), []
    for cell in cells:
        if not cell.experiment.knows_units:
            # A model that this machine alone may lack stops the shard: others would count it.
            models.give(cell)
        try:
            counts.append((cell, cell.n_masks))
        except MechspexError as error:
            # Every shard sees alike that the model has no such units.
            refused.append((cell.in_short, error))
        finally:
            models.take(cell)
    taken = part.takes([n_masks for _, n_masks in counts])
    told = part.takes([1] * len(refused))
    return (
        [cell for (cell, _), takes in zip(counts, taken, strict=True) if takes],
        [one for one, tells in zip(refused, told, strict=True) if tells],
    )


class _Models:
    """The model that was loaded last, for all sweeps that follow each other with it."""

    def __init__(self) -> None:
        self._key: tuple[str, str, str] | None = None
        self._bridge: Any = None
        self._failed: dict[tuple[str, str, str], MechspexError] = {}

    def give(self, cell: Cell) -> None:
        """Let a sweep have its model.

        Raises:
            MechspexError: it cannot be loaded; it is not tried again.
        """
        if cell.loads in self._failed:
            raise self._failed[cell.loads]
        if self._key != cell.loads:
            # The one before goes first: two may not fit.
            self._bridge = self._key = None
            try:
                self._bridge = cell.experiment.bridge
            except MechspexError as error:
                self._failed[cell.loads] = error
                raise
            self._key = cell.loads
        cell.experiment.__dict__["bridge"] = self._bridge

    def count(self, cell: Cell) -> tuple[int, int]:
        """How many masks and prompts a sweep has; its model is loaded where only that tells."""
        if not cell.experiment.knows_units:
            self.give(cell)
        try:
            return cell.n_masks, cell.n_prompts
        finally:
            self.take(cell)

    def take(self, cell: Cell) -> None:
        """Take the model from a sweep that is done."""
        cell.experiment.__dict__.pop("bridge", None)


def _run(
    cells: list[Cell],
    refused: _Refused,
    models: _Models,
    files: tuple[Path | None, Path | None],
    as_json: bool,
) -> None:
    folders, failed, incomplete = [], [error for _, error in refused], False
    for why in dict.fromkeys(map(str, failed)):
        # A slip in a list is one for many sweeps.
        to_stderr(f"mechspex: {why}")
    for number, cell in enumerate(cells, 1):
        to_stderr(f"[{number}/{len(cells)}] {cell.in_short}")
        try:
            answer = _answer(cell, models)
        except MechspexError as error:
            # The others go on; what failed is tried again by the same command.
            to_stderr(f"mechspex: {error}")
            failed.append(error)
            continue
        folders.append(cell.question.run_folder)
        incomplete = incomplete or bool(answer.failed.any())
    if folders:
        from mechspex.report.load_runs import load_runs

        show_table(load_runs(folders), *files, as_json)
    if failed:
        to_stderr(f"{len(failed)} of {len(cells) + len(refused)} sweeps failed")
        # 2 says that nothing was done.
        raise typer.Exit(MechspexError.exit_code if folders else failed[0].exit_code)
    if incomplete:
        raise typer.Exit(FailedMasksError.exit_code)


def _answer(cell: Cell, models: _Models) -> Any:
    found = cell.question.answer(SWEPT)
    if found is not None:
        return found
    models.give(cell)
    import mechspex as mx

    def search(run: str, values: Any) -> Any:
        return mx.sweep(values, order=cell.order, run=run, progress=True, **cell.around)

    try:
        return cell.question.searched(SWEPT, search, cell.experiment.prompts)
    finally:
        models.take(cell)


def _dry_run(cells: list[Cell], refused: _Refused, models: _Models, as_json: bool) -> None:
    rates: dict[tuple[str, ...], float] = {}
    rows = [_planned(cell, models, rates) for cell in cells]
    rows += [_impossible(sweep, error) for sweep, error in refused]
    cannot = [row for row in rows if row["cannot"] is not None]
    if as_json:
        print_answer(rows, True)
    else:
        print_answer("\n".join([*map(_plan_line, rows), _plan_summary(rows, len(cannot))]), False)
    if cannot:
        raise typer.Exit(MechspexError.exit_code if len(cannot) < len(rows) else Refused.exit_code)


def _planned(cell: Cell, models: _Models, rates: dict[tuple[str, ...], float]) -> dict[str, Any]:
    """What a sweep will take.

    Args:
        cell: the sweep.
        models: gives it its model.
        rates: seconds a mask that were measured, by model, prompts and density; takes its own.
    """
    density = str(cell.around.get("keep"))
    key = (*cell.loads, cell.experiment.task_name, str(cell.experiment.precision), density)
    try:
        done = cell.question.folder(SWEPT) is not None
        if not done and key not in rates:
            models.give(cell)
            rates[key] = _seconds_a_mask(cell)
            models.take(cell)
        n_masks, n_prompts = models.count(cell)
    except MechspexError as error:
        models.take(cell)
        return _impossible(cell.in_short, error)
    return {
        "sweep": cell.in_short,
        "masks": n_masks,
        "forwards": n_masks * n_prompts,
        "done": done,
        "seconds": 0.0 if done else n_masks * rates[key],
        "cannot": None,
    }


def _impossible(sweep: str, error: MechspexError) -> dict[str, Any]:
    nothing = {"masks": 0, "forwards": 0, "done": False, "seconds": 0.0}
    return {"sweep": sweep, **nothing, "cannot": str(error)}


def _plan_line(row: dict[str, Any]) -> str:
    if row["cannot"] is not None:
        return f"{row['sweep']}: cannot be done: {row['cannot']}"
    time = "done" if row["done"] else f"about {time_in_words(row['seconds'])}"
    return f"{row['sweep']}: {row['masks']:,} masks, {row['forwards']:,} forwards, {time}"


def _plan_summary(rows: list[dict[str, Any]], n_cannot: int) -> str:
    left = [row for row in rows if not row["done"] and row["cannot"] is None]
    masks, forwards, seconds = (
        sum(row[k] for row in left) for k in ("masks", "forwards", "seconds")
    )
    rate = f" ({forwards / seconds:,.0f} forwards/s, measured here)" if seconds else ""
    others = f"; {n_cannot} cannot be done" if n_cannot else ""
    return (
        f"{len(left)} of {len(rows)} sweeps to do: {masks:,} masks, {forwards:,} forwards, about "
        f"{time_in_words(float(seconds))}{rate}{others}"
    )


def _seconds_a_mask(cell: Cell) -> float:
    """The seconds that one of the sweep's own masks takes: on its prompts, or on some if many."""
    import numpy as np

    from mechspex.core.masks import turn_sets
    from mechspex.effects.sweep import contexts_of
    from mechspex.runs.recorded import RecordedValues

    n_all = cell.n_prompts
    n_prompts = min(n_all, _TIMED_PROMPTS)
    if n_prompts < n_all:
        # There may not be as many.
        cell.experiment.task_drawn(n_all)
    (values,) = cell.experiment.values(n_prompts)
    columns = np.linspace(0, len(values.units) - 1, 2 * _TIMED).astype(int)
    context, *_ = contexts_of(len(values.units), **({"contexts": 0} | cell.around))
    masks = turn_sets(context, [(int(column),) for column in np.unique(columns)])
    values(masks[1::2])
    recorded = RecordedValues(values, None)
    seconds = recorded.pace(masks[::2])
    recorded.close()
    return (seconds or 0.0) * n_all / n_prompts
