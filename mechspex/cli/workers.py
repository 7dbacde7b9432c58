"""``--executor`` of a command: who measures what it asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from mechspex.cli.output import EXPERIMENT

_OPTION = inspect.Parameter(
    "executor",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            help="Who measures: processes:4, gpus, ray:8 or slurm:16; this process if not given. "
            "The answer is the same.",
            rich_help_panel=EXPERIMENT,
        ),
    ],
)
# Behind which option it stands; at the end of the command's own where there is none.
_AFTER = "device"


def with_workers(command: Callable[..., None]) -> Callable[..., None]:
    """Splice ``--executor`` into a command: all runs in it are measured by those workers."""
    parameters = [*inspect.signature(command, eval_str=True).parameters.values()]
    names = [parameter.name for parameter in parameters]
    place = names.index(_AFTER) + 1 if _AFTER in names else names.index("as_json")

    @wraps(command)
    def run(**given: Any) -> None:
        name = given.pop("executor")
        if name is None:
            command(**given)
            return
        from mechspex.executors.named import executor

        with executor(name):
            command(**given)

    parameters.insert(place, _OPTION)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in parameters}
    return run
