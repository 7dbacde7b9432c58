"""What commands share: the options that ask a question, the question itself, and its answer."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.errors import Refused, RunError, StoreError

TaskName = Annotated[str, typer.Argument(help="A task (see mechspex tasks) or a TOML file.")]
ModelName = Annotated[
    str, typer.Option("--model", help="tiny, smollm2-135m, a local folder or a Hub name.")
]
UnitNames = Annotated[
    str, typer.Option("--units", help="heads, mlps, neurons, or a sum: heads+mlps.")
]
Ablation = Annotated[str, typer.Option(help="mean, zero, resample or corrupted.")]
Prompts = Annotated[
    int,
    typer.Option(
        "--prompts",
        help="How many prompts; explain takes as many fresh ones to test what it finds, four "
        "times as many after a screen.",
    ),
]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Precision = Annotated[
    str | None,
    typer.Option(help="bf16 measures faster and less exactly; tests stay in --dtype."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, …")]
RunName = Annotated[
    str | None,
    typer.Option("--run", help="Name of the run below $MECHSPEX_RUNS (default: runs)."),
]
Seed = Annotated[int, typer.Option(help="Of prompts, masks and decoder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]


@dataclass(frozen=True)
class Question:
    """What some units of a model do in a task, under an ablation; as the options have it.

    Nothing is loaded before it is needed, so that a command refuses bad input first.

    Attributes:
        units: their kinds, ``heads+mlps``.
        run: a name asked for; None for one that tells the question.
        precision: in which the first value function measures; the others in the model's own.

    Raises:
        RunError: a run that cannot be written.
    """

    task: str
    model: str
    units: str
    ablation: str
    dtype: str
    device: str
    run: str | None
    seed: int
    precision: str | None = None

    def __post_init__(self) -> None:
        from mechspex.runs.run import run_folder

        if self.run is None:
            return
        # Before a model is loaded: minutes are lost when this is found out at the end.
        folder = run_folder(self.run)
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise RunError(f"run folder {folder} cannot be written; choose another --run")

    @cached_property
    def bridge(self) -> Any:
        """The model."""
        import torch

        import mechspex as mx

        known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
        if self.dtype not in known:
            raise typer.BadParameter(f"dtype {self.dtype!r}: choose {', '.join(known)}")
        return mx.load_model(self.model, dtype=known[self.dtype], device=self.device)

    @cached_property
    def chosen(self) -> Any:
        """The units, a column of the masks each."""
        import mechspex as mx
        from mechspex.core.units import UnitSet

        kinds = {"heads": mx.heads, "mlps": mx.mlps, "neurons": mx.neurons}
        chosen = UnitSet()
        for name in self.units.split("+"):
            if name not in kinds:
                raise typer.BadParameter(f"{name!r}: choose heads, mlps, neurons or a sum of them")
            chosen = chosen + kinds[name](self.bridge)
        return chosen

    def values(self, *prompts: int) -> list[Any]:
        """A value function on so many prompts, another one on so many further ones, and so on."""
        import mechspex as mx

        # What cannot be chosen is refused before prompts are drawn.
        chosen = self.chosen
        drawn = mx.load_task(self.task, self.bridge, n_prompts=sum(prompts), seed=self.seed)
        first, *others = drawn.split(*prompts)
        values = mx.ComponentValues(
            self.bridge, first, chosen, self.ablation, precision=self.precision, seed=self.seed
        )
        if values.precision_error is not None:
            print(values.precision_error, file=sys.stderr)
        return [values, *(values.in_own_dtype.on(task) for task in others)]

    @contextmanager
    def kept(self, values: Any, about: str) -> Iterator[str]:
        """The name of the run in which the answer is kept; says how to go on when it is stopped.

        The same question gets the same folder, any other question another one.

        Args:
            values: on what the answer rests.
            about: the question in short, for a run without a name.
        """
        from mechspex.runs.run import run_folder

        name = self.run or _run_name(f"{values.task.name}-{about}", values.configuration)
        try:
            yield name
        except (KeyboardInterrupt, Terminated):
            command = shlex.join(["mechspex", *sys.argv[1:]])
            print(
                f"\nstopped; the values are kept in {run_folder(name)}. Resume: {command}",
                file=sys.stderr,
            )
            raise


def _run_name(about: str, configuration: dict[str, str]) -> str:
    import hashlib

    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', about).strip('-._')}-{digest[:8]}"


class Terminated(Exception):
    """SIGTERM, as schedulers send it before they take a machine away."""


def refuse_unwritable(*files: Path | None) -> None:
    """Refuse files that an answer cannot be written to, before anything is loaded."""
    for file in files:
        if file is None:
            continue
        there = file if file.exists() else file.absolute().parent
        if file.is_dir() or not os.access(there, os.W_OK):
            raise Refused(
                f"{file} cannot be written; name a file in a folder that exists and is writable"
            )


@contextmanager
def writing() -> Iterator[None]:
    """A file that cannot be written after all, on a full disk, costs no value."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{error.filename or 'a file'} could not be written ({error.strerror}); the values are "
            "kept, the same command measures nothing again"
        ) from None


def print_answer(content: Any, as_json: bool) -> None:
    """Print text, or a dictionary or list as JSON."""
    print(json.dumps(content, indent=1, allow_nan=False) if as_json else content)
