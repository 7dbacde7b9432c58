"""Options that a search has and no other command: other units, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from mechspex.cli.output import EXPERIMENT, MASKS


@dataclass(frozen=True, kw_only=True)
class Search:
    """What may take the place of a model's components, and of a number of masks."""

    training: Annotated[
        str | None,
        typer.Option(
            help="Training examples in place of components: a training task (poison, digits, …), "
            "or a Python file that says `values = mechspex.TrainingValues(…)`.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(
            help="As many masks as fit in this time, by the measured rate; in place of --masks.",
            rich_help_panel=MASKS,
        ),
    ] = None
