"""The command line: data on stdout, progress on stderr, exit codes that scripts can trust."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mechspex import __version__
from mechspex.cli import (
    audit,
    circuits,
    collect,
    compare_models,
    doctor,
    explain,
    figure,
    prune,
    report,
    runs,
    screening,
    self_repair,
    sweep,
    sweeps,
)
from mechspex.cli import status as inspection
from mechspex.cli.output import Terminated
from mechspex.core.errors import MechspexError, Refused

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """All commands; a wrong choice is told without the prefix of the library that checks it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        of_runs: Any = self.commands["runs"]
        if found is None and cmd_name in of_runs.commands:
            raise Refused(f"no command {cmd_name!r}; did you mean: mechspex runs {cmd_name}")
        return found


app = typer.Typer(
    cls=_Commands,
    name="mechspex",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# In the order in which the help lists them.
for command in (
    explain.explain,
    screening.screen,
    screening.validate,
    sweep.sweep,
    sweeps.sweeps,
    circuits.circuit,
    circuits.compare,
    compare_models.compare_models,
    audit.audit,
    prune.prune,
    self_repair.self_repair,
    report.report,
    collect.collect,
    figure.figure,
    inspection.tasks,
    inspection.models,
    circuits.bench,
    inspection.status,
    doctor.doctor,
):
    app.command()(command)
app.add_typer(runs.app, name="runs")


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"mechspex {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def whole(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Find which parts of a language model act together, from as few ablations as possible."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 failed, 2 usage, 3 done with failed masks, 130 interrupted (Ctrl-C), 143
    terminated (SIGTERM).
    """
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        # Where × and … cannot be written, an escape is better than no answer.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                app()
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        # … | head: the reader has what it wanted. What is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except MechspexError as error:
        print(f"mechspex: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except PermissionError as error:
        print(f"mechspex: {error.filename} may not be opened: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None
    except Terminated:
        raise SystemExit(143) from None


def _show_warning(message: Warning | str, *_where: object) -> None:
    """A warning in one line, without the line of code that it comes from."""
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _terminate(_signal: int, _frame: object) -> None:
    raise Terminated
