"""What every command asks about: the options of an experiment, checked before anything loads."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mechspex.cli.choices import Ablation, Dtype, Precision
from mechspex.cli.latents import NamedLatents, split_latents
from mechspex.cli.layers import of_layers
from mechspex.cli.output import (
    EXPERIMENT,
    OUTPUT,
    Json,
    Terminated,
    print_answer,
    refuse_picture,
    refuse_unwritable,
    to_stderr,
    writing,
)
from mechspex.cli.own_prompts import N_PROMPTS, OwnPrompts, check_ablation, say_drawing, sizes_of
from mechspex.cli.run_names import keep_options, run_name
from mechspex.cli.search import Search
from mechspex.core.checks import check_seed
from mechspex.core.csv_tables import write_csv
from mechspex.core.errors import Refused, RunError
from mechspex.core.units import UnitSet

# What torch calls its devices, a number behind a colon left out.
_DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "privateuseone", "ipu", "meta")


@dataclass(frozen=True, kw_only=True)
class Experiment(Search, OwnPrompts):
    """What some units of a model do in a task, under an ablation; as the options have it.

    Each field but the last is an option, spliced into a command by `asks`. Nothing is loaded before
    it is needed, so that a command refuses bad input first.

    Attributes:
        asked: the name of the command and all of its options, those of its own among them.
    """

    task: Annotated[
        str | None, typer.Argument(help="A task (see mechspex tasks) or a TOML file.")
    ] = None
    model: Annotated[
        str,
        typer.Option(
            help="tiny, smollm2-135m, a local folder or a Hub name.", rich_help_panel=EXPERIMENT
        ),
    ] = "smollm2-135m"
    units: Annotated[
        str,
        typer.Option(
            help="heads, mlps, neurons, or a sum: heads+mlps; edges; heads@S2 at a named span, "
            "heads@-1 at the last token; or some by name: L0H1,L1H3@S2. "
            "latents:smollm2-135m-l15, or of a FOLDER: the 64 latents of a dictionary that the "
            "prompts make most active; latents:FOLDER:top200, latents:FOLDER:12,40.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = "heads"
    layers: Annotated[
        str | None,
        typer.Option(
            help="Only units of these layers: 20-29, or 0,3,5.", rich_help_panel=EXPERIMENT
        ),
    ] = None
    ablation: Annotated[
        Ablation,
        typer.Option(
            help="What takes an ablated unit's place: the mean over the prompts, over all their "
            "positions or over the other prompts, zeros, the activation on another prompt, or on "
            "the corrupted one.",
            case_sensitive=False,
            rich_help_panel=EXPERIMENT,
        ),
    ] = "mean"
    prompts: Annotated[
        int,
        typer.Option(
            help="How many prompts are searched; further ones test what is found.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = 8
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="Of the weights and of all arithmetic.",
            case_sensitive=False,
            rich_help_panel=EXPERIMENT,
        ),
    ] = "float32"
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Measures faster and less exactly; tests stay in --dtype.",
            case_sensitive=False,
            rich_help_panel=EXPERIMENT,
        ),
    ] = None
    device: Annotated[
        str,
        typer.Option(help="cpu, cuda, mps …", envvar="MECHSPEX_DEVICE", rich_help_panel=EXPERIMENT),
    ] = "cpu"
    seed: Annotated[
        int, typer.Option(help="Of prompts, masks and decoder.", rich_help_panel=EXPERIMENT)
    ] = 0
    csv: Annotated[
        Path | None, typer.Option(help="Write the answer as a table.", rich_help_panel=OUTPUT)
    ] = None
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw it (.png, .svg or .pdf).", rich_help_panel=OUTPUT),
    ] = None
    run: Annotated[
        str | None,
        typer.Option(
            help="Name of the run below $MECHSPEX_RUNS (default: runs).", rich_help_panel=OUTPUT
        ),
    ] = None
    as_json: Json = False

    asked: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what cannot be, as far as that shows without loading the model.

        Raises:
            Refused: a run that cannot be written, an unknown task, model, device or unit, and
                numbers out of range.
        """
        from mechspex.models.shape import kinds_of
        from mechspex.models.shipped import SHAPES, check_model_name
        from mechspex.tasks.task_file import read_task_file

        self.check_run()
        refuse_unwritable(self.csv, self.figure)
        refuse_picture(self.figure)
        self.check_own(self.task)
        task_file = None if self.task is None else read_task_file(self.task)
        check_model_name(self.model)
        if self.device.split(":")[0] not in _DEVICES:
            raise Refused(f"device {self.device!r} is unknown; choose cpu, cuda, cuda:1, mps, …")
        check_seed(self.seed)
        N_PROMPTS("n_prompts", self.prompts)
        if self.has_text:
            return
        calibrated = self.calibration_texts is not None
        corrupted = task_file is None or "corrupted" in task_file.templates[0]
        check_ablation(self.ablation, self.task_name, self.prompts, corrupted, calibrated)
        others, latents = self._named
        for one in latents:
            _ = one.path
        if others:
            kinds_of(others)
        if self.model in SHAPES:
            # Names and kinds that the model does not have.
            _ = self._others if latents else self.chosen
        if self.has_own and self._light_tokenizer is not None:
            own = self.own_task(self._light_tokenizer)
            corrupted = own.corrupted is not None
            check_ablation(self.ablation, self.task_name, len(own), corrupted, calibrated)

    def check_run(self) -> None:
        """Refuse a run whose folder cannot be written."""
        from mechspex.runs.run import may_be_read, run_folder

        if self.run is None or may_be_read(run_folder(self.run)):
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

        return mx.load_model(self.model, dtype=getattr(torch, self.dtype), device=self.device)

    @cached_property
    def _named(self) -> tuple[str, tuple[NamedLatents, ...]]:
        """What is named beside latents, and these."""
        return split_latents(self.units)

    @cached_property
    def _others(self) -> Any:
        """The units beside latents."""
        from mechspex.models.shipped import SHAPES

        others, _ = self._named
        if self.model in SHAPES:
            shape = SHAPES[self.model]
        else:
            from mechspex.models.units import shape_of

            shape = shape_of(self.bridge)
        return shape.units(others) if others else UnitSet()

    @cached_property
    def chosen(self) -> Any:
        """The units, a column of the masks each; no model is loaded where `knows_units`."""
        if self._named[1]:
            return self.chosen_on(self.task_drawn(self.prompts)[: self.prompts])
        return self._others if self.layers is None else of_layers(self._others, self.layers)

    def chosen_on(self, searched: Any) -> Any:
        """The units, latents among them chosen by the prompts that are searched."""
        _, latents = self._named
        if not latents:
            return self.chosen
        units = self._others
        for one in latents:
            units = units + one.units(self.bridge, searched)
        return units if self.layers is None else of_layers(units, self.layers)

    @property
    def most_units(self) -> int:
        """How many units there are at most."""
        _, latents = self._named
        if not latents:
            return len(self.chosen)
        return len(self._others) + sum(one.at_most for one in latents)

    @property
    def about(self) -> str:
        """What is ablated, and how, for the name of a run."""
        others, latents = self._named
        units = self.units
        if latents:
            units = "+".join([*([others] if others else ()), *(one.in_short for one in latents)])
        return f"{units}-{self.ablation}"

    @property
    def dictionaries(self) -> list[Path]:
        """The folders of the dictionaries whose latents are units."""
        return [one.path for one in self._named[1]]

    @cached_property
    def _light_tokenizer(self) -> Any:
        """The model's tokenizer without the model; None where that takes more."""
        from mechspex.models.shipped import local_folder
        from mechspex.models.tokenizer import FolderTokenizer

        folder = local_folder(self.model)
        if self.chat or folder is None or not FolderTokenizer.reads(folder):
            return None
        return FolderTokenizer(folder)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, without the model where that is all it takes."""
        if self._light_tokenizer is not None:
            return self._light_tokenizer
        from mechspex.models.tokenizer import own_tokenizer

        return own_tokenizer(self.bridge.tokenizer) if self.chat else self.bridge.tokenizer

    def task_drawn(self, n_prompts: int, say: Callable[[object], None] | None = None) -> Any:
        """The prompts, drawn with the model's tokenizer alone where that is all it takes.

        Args:
            n_prompts: how many of a task; prompts of your own are all there.
            say: prints what is to be said of prompts of your own.
        """
        from mechspex.models.shape import names_spans
        from mechspex.tasks.draw_task import draw_task

        if self.task is None:
            return self.own_task(self.tokenizer, say)
        name = self.model if self._light_tokenizer else self.bridge.cfg.model_name
        others, latents = self._named
        spans = any(isinstance(one.place, str) for one in latents)
        spans = spans or bool(others and names_spans(others))
        options: dict[str, Any] = {"seed": self.seed, "spans": spans}
        draw = partial(draw_task, self.task, self.tokenizer, name, **options)
        say_drawing(self.task_name, n_prompts, lambda n: draw(n_prompts=n))
        return self.as_asked(draw(n_prompts=n_prompts))

    @property
    def task_name(self) -> str:
        """The name of the task, or of the prompts."""
        if self.task is not None or self.training is not None:
            return Path(self.task or self.training or "").stem
        file = self.prompts_from or self.context
        return ("text" if self.has_text else "prompt") if file is None else file.stem

    def show(self, answer: Any) -> None:
        """Print an answer as the options want it: text, or JSON."""
        print_answer(answer.to_dict() if self.as_json else str(answer), self.as_json)

    @property
    def knows_units(self) -> bool:
        """Whether the units are known without loading the model."""
        from mechspex.models.shipped import SHAPES

        return self.model in SHAPES and not self._named[1]

    def values(self, *prompts: int, say: Callable[[object], None] | None = None) -> list[Any]:
        """A value function on so many prompts, another one on so many further ones, and so on.

        Args:
            *prompts: the number of prompts of each value function.
            say: prints what another precision costs; on stderr if not given.
        """
        say = say or to_stderr
        # Words that are no single tokens are told of before the model is loaded.
        drawn = self.task_drawn(sum(prompts))
        to_stderr(f"loading {self.model} and proving its ablations exact …")
        import mechspex as mx

        own = self.task is None
        first, *others = self._own_parts(prompts, say) if own else drawn.split(*prompts)
        values = mx.ComponentValues(
            self.bridge, first, self.chosen_on(first), self.ablation, precision=self.precision,
            seed=self.seed, calibration=self.calibration_texts,
        )  # fmt: skip
        if values.precision_error is not None:
            say(values.precision_error)
        return [values, *(values.in_own_dtype.on(task) for task in others)]

    def _own_parts(self, wanted: tuple[int, ...], say: Callable[[object], None]) -> list[Any]:
        """The prompts in parts, and what is to be said of them."""
        from mechspex.models.positions import most_positions
        from mechspex.models.tokenizer import own_tokenizer
        from mechspex.tasks.token_rows import read_as

        tokenizer = self.bridge.tokenizer
        reader = own_tokenizer(tokenizer) if self.chat else tokenizer
        task = self.own_task(reader, say, most_positions(self.bridge))
        say(f"the first prompt is read as {read_as(task, tokenizer)}")
        if len(task) == 1:
            # All that there is; what is found is exact for it and says nothing of others.
            return [task] * len(wanted)
        sizes = sizes_of(wanted, len(task))
        if len(sizes) > 1:
            say(f"of {len(task)} prompts {sizes[0]} are searched, {sum(sizes[1:])} others test it")
        elif sum(sizes) < len(task):
            say(f"of {len(task)} prompts the first {sum(sizes)} are used; --prompts takes more")
        return list(task.split(*sizes))

    def write(self, answer: Any) -> None:
        """Write the table and the picture that the options name."""
        with writing():
            if self.csv is not None:
                write_csv(self.csv, answer.to_pandas())
            if self.figure is not None:
                answer.plot().savefig(self.figure, dpi=150)

    @contextmanager
    def kept(self, values: Any, about: str) -> Iterator[str]:
        """The name of the run in which the answer is kept; says how to go on when it is stopped.

        The same question gets the same folder, any other question another one.

        Args:
            values: on what the answer rests.
            about: the question in short, for a run without a name.
        """
        from mechspex.runs.run import run_folder

        name = self.run or run_name(f"{self.task_name}-{about}", values.configuration)
        try:
            yield name
            keep_options(name, self.task_name, self)
        except (KeyboardInterrupt, Terminated):
            command = shlex.join(["mechspex", *sys.argv[1:]])
            print(
                f"\nstopped; the values are kept in {run_folder(name)}. Resume: {command}",
                file=sys.stderr,
            )
            raise
