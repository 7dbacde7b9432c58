"""Options about prompts: those of your own, and how any are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from mechspex.cli.choices import AnswerTokens, Metric
from mechspex.cli.output import EXPERIMENT, PROMPTS, to_stderr
from mechspex.cli.own_texts import OwnTexts
from mechspex.core.checks import Whole
from mechspex.core.counted import time_in_words
from mechspex.core.errors import AblationError, Refused, TaskError

# Files of prompts, and of texts alone.
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_TEXTS = ".txt"
# More prompts are a slip, and of so many it is told that they are drawn, as that takes a while.
N_PROMPTS = Whole(1, 10**5, "at least one prompt", error=TaskError)
_MANY = 1_000
_TIMED = 200
# More than there can be: all prompts of one's own in one part.
ALL_OWN = 10**9
# Ablations by what other prompts have.
_OVER_PROMPTS = ("mean", "leave_one_out", "resample")


@dataclass(frozen=True, kw_only=True)
class OwnPrompts(OwnTexts):
    """Prompts of your own in place of a task, and how prompts are read."""

    prompts_from: Annotated[
        Path | None,
        typer.Option(
            help="A file of prompts in place of a task: .csv, .tsv, .json or .jsonl with columns "
            "prompt, answer and, where there are any, distractor, corrupted; or a published one.",
            rich_help_panel=PROMPTS,
        ),
    ] = None
    prompt: Annotated[
        str | None,
        typer.Option(help="One prompt in place of a task.", rich_help_panel=PROMPTS),
    ] = None
    answer: Annotated[
        list[str] | None,
        typer.Option(
            help="How it should go on; may be given several times.", rich_help_panel=PROMPTS
        ),
    ] = None
    distractor: Annotated[
        list[str] | None,
        typer.Option(
            help="How it should not go on; may be given several times.", rich_help_panel=PROMPTS
        ),
    ] = None
    corrupted: Annotated[
        str | None,
        typer.Option(
            help="The prompt without what the answer rests on, for --ablation corrupted.",
            rich_help_panel=PROMPTS,
        ),
    ] = None
    skip: Annotated[
        bool,
        typer.Option(
            "--skip", help="Go on without rows that do not fit the model.", rich_help_panel=PROMPTS
        ),
    ] = False
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Put the model's chat template round them.", rich_help_panel=PROMPTS
        ),
    ] = False
    metric: Annotated[
        Metric | None,
        typer.Option(
            help="What is measured; the task's own if not given.",
            case_sensitive=False,
            rich_help_panel=EXPERIMENT,
        ),
    ] = None
    answer_tokens: Annotated[
        AnswerTokens,
        typer.Option(
            help="Of an answer of several tokens: the sum of all, their mean, the first alone.",
            case_sensitive=False,
            rich_help_panel=EXPERIMENT,
        ),
    ] = "all"
    prepend_bos: Annotated[
        bool | None,
        typer.Option(
            "--prepend-bos/--no-prepend-bos",
            help="A BOS token before each prompt or none; the task's or tokenizer's way if not "
            "given.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A file of prompts, or .txt of one text a line, over which means and draws are "
            "taken.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None

    @property
    def has_own(self) -> bool:
        """Whether there are prompts in place of a task."""
        return self.prompts_from is not None or self.prompt is not None

    def check_own(self, task: str | None) -> None:
        """Refuse options that contradict each other.

        Args:
            task: the task that is named.

        Raises:
            TaskError: no prompts, or those of two places; options about prompts that there are not.
        """
        if self.has_text:
            self.check_texts(task)
            beside = [n for n in ("prompts_from", "prompt", "answer") if getattr(self, n)]
            if beside:
                name = beside[0].replace("_", "-")
                raise TaskError(f"--{name} and a text of your own are given; choose one")
            return
        self.check_no_texts()
        given = [name for name in ("answer", "distractor", "corrupted") if getattr(self, name)]
        if self.prompt is None and given:
            raise TaskError(f"--{given[0]} goes with --prompt; in a file it is a column")
        if self.prompt == "":
            raise TaskError("--prompt is empty: give the text that the answer follows")
        if self.prompt is not None and not self.answer:
            raise TaskError("--prompt needs --answer: how the prompt should go on")
        if self.prompt is not None and self.prompts_from is not None:
            raise TaskError("--prompt and --prompts-from are given; choose one")
        if self.has_own and task is not None:
            raise TaskError(f"task {task!r} and prompts of your own are given; choose one")
        if not self.has_own:
            if task is None:
                raise TaskError(
                    "name a task (mechspex tasks lists them), or give prompts of your own: "
                    "--prompts-from FILE, or --prompt and --answer"
                )
            if is_table(task):
                raise TaskError(f"{task!r} is a file of prompts: give it as --prompts-from {task}")
            if self.chat or self.skip:
                name = "--chat" if self.chat else "--skip"
                raise TaskError(f"{name} goes with prompts of your own; {task!r} has none")

    def own_task(
        self,
        tokenizer: Any,
        say: Callable[[object], None] | None = None,
        longest: int | None = None,
    ) -> Any:
        """The prompts as a task.

        Args:
            tokenizer: the model's.
            say: prints which rows were left out, and the like.
            longest: how many tokens the model can read, where that is known.
        """
        from mechspex.tasks.reading import reading_of

        row = {
            "prompt": self.prompt,
            "answer": self.answer,
            "distractor": self.distractor,
            "corrupted": self.corrupted,
        }
        read = reading_of(
            [row] if self.prompts_from is None else self.prompts_from,
            tokenizer,
            metric=self.metric,
            skip=self.skip,
            chat=self.chat,
            prepend_bos=self.prepend_bos,
            answer_tokens=self.answer_tokens,
            longest=longest,
        )
        for remark in read.remarks:
            if say is not None:
                say(remark)
        return read.task if self.prompts_from else replace(read.task, name="prompt")

    def as_asked(self, task: Any) -> Any:
        """A task of a task file, read as the options have it."""
        changed: dict[str, Any] = {"answer_tokens": self.answer_tokens}
        if self.metric is not None:
            changed["metric"] = self.metric
        if self.prepend_bos is not None:
            changed["prepend_bos"] = self.prepend_bos
        return replace(task, **changed)

    @property
    def calibration_texts(self) -> tuple[str, ...] | None:
        """The texts over which means and draws are taken.

        Raises:
            TaskError: a file that cannot be read, or has none.
        """
        if self.calibration is None:
            return None
        from mechspex.tasks.prompt_layouts import layout_of
        from mechspex.tasks.prompt_records import file_text, records_of

        if self.calibration.suffix.lower() == _TEXTS:
            lines = file_text(self.calibration).splitlines()
            texts = tuple(line for line in lines if line.strip())
        else:
            records = records_of(self.calibration)[1]
            layout = layout_of(records)
            texts = tuple(layout.read(record.cells, records).prompt for record in records)
        if not texts:
            raise TaskError(f"{self.calibration} has no texts; write one a line")
        return texts


def say_drawing(task_name: str, n_prompts: int, draw: Callable[[int], object]) -> None:
    """Say of many prompts that they are drawn, and how long that takes: up to minutes.

    Args:
        task_name: what the prompts are called.
        n_prompts: how many there are.
        draw: draws so many of them; a few are timed.
    """
    if n_prompts > _MANY:
        began = perf_counter()
        draw(_TIMED)
        seconds = (perf_counter() - began) / _TIMED * n_prompts
        to_stderr(f"drawing {n_prompts:,} prompts of {task_name}, about {time_in_words(seconds)} …")


def check_ablation(
    ablation: str, task_name: str, n_prompts: int, corrupted: bool, calibrated: bool
) -> None:
    """Refuse an ablation for which the prompts lack something.

    Args:
        ablation: its name.
        task_name: what the prompts are called.
        n_prompts: how many there are.
        corrupted, calibrated: whether there are corrupted ones, and calibration texts.

    Raises:
        AblationError: no corrupted prompts, or a mean over one prompt.
    """
    if ablation == "corrupted" and not corrupted:
        raise AblationError(
            f"ablation 'corrupted' needs a corrupted text for each prompt, {task_name!r} has "
            "none; add them, or choose another ablation"
        )
    if n_prompts == 1 and ablation in _OVER_PROMPTS and not calibrated:
        raise AblationError(
            f"ablation {ablation!r} over a single prompt would replace every activation by itself; "
            "give more prompts, --calibration FILE, or choose 'zero' or 'position_mean'"
        )


def is_table(task: str) -> bool:
    """Whether the name of a task is that of a file of prompts."""
    return Path(task).suffix.lower() in _TABLES


def sizes_of(wanted: tuple[int, ...], n_there: int) -> tuple[int, ...]:
    """How many of so many prompts go into each of several parts.

    As many as are wanted, from the first on; where there are fewer, all of them in the same
    proportion, no part being empty.

    Args:
        wanted: the number of prompts of each part.
        n_there: how many there are, at least one a part.

    Raises:
        Refused: fewer than one a part.
    """
    if n_there < len(wanted):
        raise Refused(f"{n_there} prompts make no {len(wanted)} parts; give more")
    if sum(wanted) <= n_there:
        return wanted
    # Two prompts of the first part at least: the mean over one is its own activation.
    least = min(2, n_there - len(wanted) + 1)
    first = max(least, n_there * wanted[0] // sum(wanted))
    if len(wanted) == 1:
        return (n_there,)
    first = min(first, n_there - len(wanted) + 1)
    return first, *sizes_of(wanted[1:], n_there - first)
