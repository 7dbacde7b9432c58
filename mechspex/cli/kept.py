"""Answers that are kept: the same command again finds its own, and loads no model for it.

The name of a run follows from what its values depend on, which only a loaded model tells. A
question is what a command line tells: its options, and every file and version behind them. Each
run lists the questions whose answers lie in it, with the digests of these answers, so that an
answer that was overwritten since is not taken for another one.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mechspex.cli.experiment import Experiment
from mechspex.cli.output import SHOWN_BY
from mechspex.cli.run_names import slug
from mechspex.core.errors import Refused

# The files of answers that are taken again.
EXPLAINED, SWEPT, DISCOVERED = "explanation.json", "sweep.json", "discovery.json"
SCREENED, TESTED = "candidates.json", "validation.json"
PRUNED, REPAIRED = "pruning.json", "self_repair.json"
QUESTIONS = "questions.json"
SCHEMA = "mechspex.questions/1"

# Times as many fresh prompts score what is found on the first ones.
FRESH = 4

# Whatever an answer may come out differently with.
_PACKAGES = (
    "mechspex", "numpy", "scipy", "pandas", "scikit-learn", "lightgbm", "networkx", "torch",
    "transformers", "transformer-lens", "tokenizers", "safetensors", "mlxtend",
)  # fmt: skip
_PACKAGE = Path(__file__).parents[1]


@dataclass
class Question:
    """A command with all that its answer depends on.

    Attributes:
        experiment: its options that are shared.
        about: the question in short, as in the name of a run.
        digest: a hash of everything that the answer depends on; None where not all of it is known:
            the files of a model that are not at hand (a Hub name), what a Python file reads.
        said: lines for stderr that belong to the answer.
        run_folder: the folder of the run that holds the answer, once it is kept or found.
    """

    experiment: Experiment
    about: str
    digest: str | None
    said: list[str] = field(default_factory=list)
    run_folder: Path | None = None

    @classmethod
    def of(cls, experiment: Experiment, about: str) -> Question:
        """The question that the command line asks now."""
        return cls(experiment, about, _digest(experiment))

    def say(self, line: object) -> None:
        """Print a line that belongs to the answer on stderr; it is said again with it."""
        print(line, file=sys.stderr)
        self.said.append(str(line))

    def folder(self, answer: str) -> Path | None:
        """The folder of the run that holds the answer to this very question; None if none does.

        Args:
            answer: the file of the answer.
        """
        if self.digest is None:
            return None
        for folder in self._folders():
            kept = _read(folder / QUESTIONS).get(self.digest)
            if kept is not None and kept["answer"] == {answer: _file_digest(folder / answer)}:
                for line in kept["said"]:
                    print(line, file=sys.stderr)
                return folder
        return None

    def keep(self, folder: Path, answer: str) -> None:
        """Note that the run's answer is that of this question."""
        from mechspex.core.json_values import checked, write_json
        from mechspex.runs.run import may_be_written

        self.run_folder = folder
        if self.digest is None or not may_be_written(folder):
            return
        kept = {"answer": {answer: _file_digest(folder / answer)}, "said": self.said}
        questions = _read(folder / QUESTIONS) | {self.digest: kept}
        write_json(folder / QUESTIONS, checked({"schema": SCHEMA, "questions": questions}))

    def answer(self, kind: str) -> Any:
        """The kept answer to this very question, which took nothing now; None if there is none.

        Args:
            kind: the file of such answers.
        """
        folder = self.folder(kind)
        if folder is None:
            return None
        from mechspex.report.load import load

        found: Any = load(folder / kind)
        self.run_folder = folder
        parts, changed = {part.name for part in fields(found)}, {}
        if "cost" in parts and found.cost is not None:
            nothing = {
                "measured": 0,
                "values_measured": 0,
                "seconds_measuring": 0.0,
                "seconds": 0.0,
            }
            changed["cost"] = replace(found.cost, **nothing)
        if "folder" in parts:
            changed["folder"] = folder
        return replace(found, **changed)

    def answered(self, kind: str, search: Callable[..., Any], *prompts: int) -> Any:
        """The answer to this question: the kept one, or what is found now, which is kept.

        Args:
            kind: the file of such answers.
            search: takes the name of the run and a value function for each part of the prompts.
            *prompts: how many prompts each part has.
        """
        kept = self.answer(kind)
        return self.searched(kind, search, *prompts) if kept is None else kept

    def searched(self, kind: str, search: Callable[..., Any], *prompts: int) -> Any:
        """What is found now, which is kept; the arguments are those of `answered`."""
        values = self.experiment.values(*prompts, say=self.say)
        # Torch comes with the models: what is refused is refused without it.
        from mechspex.report.patterns import keep_patterns
        from mechspex.runs.run import run_folder

        with self.experiment.kept(values[0], self.about) as name:
            self._say_replaced(run_folder(name), kind)
            found = search(name, *values)
        keep_patterns(values[0], run_folder(name))
        self.keep(run_folder(name), kind)
        return found

    def _say_replaced(self, folder: Path, answer: str) -> None:
        """Say that a run holds the answer to another question, which will not be there any more."""
        there = {answer: _file_digest(folder / answer)}
        kept = _read(folder / QUESTIONS).items()
        if any(one["answer"] == there for digest, one in kept if digest != self.digest):
            # Not what belongs to the new answer: it is not said again with it.
            print(
                f"{folder} holds another answer, which this one replaces (the values stay); "
                "--run NAME keeps both",
                file=sys.stderr,
            )

    def _folders(self) -> list[Path]:
        from mechspex.runs.run import run_folder

        if self.experiment.run is not None:
            return [run_folder(self.experiment.run)]
        beginning = run_folder(slug(f"{self.experiment.task_name}-{self.about}"))
        return sorted(beginning.parent.glob(f"{beginning.name}-????????"))


def _digest(experiment: Experiment) -> str | None:
    from mechspex.models.shipped import local_folder

    model = local_folder(experiment.model)
    if experiment.training is not None:
        # A file of the user's may read others, of which nothing is known here.
        if experiment.training.endswith(".py"):
            return None
        model = None
    elif model is None:
        return None
    asked = {name: option for name, option in experiment.asked.items() if name not in SHOWN_BY}
    options = [o.name for o in fields(experiment)[:-1] if o.name not in SHOWN_BY]
    told = {
        "asked": {name: _content(option) for name, option in asked.items()},
        "experiment": {option: _content(getattr(experiment, option)) for option in options},
        "task": None if experiment.task is None else _content(_task_file(experiment.task)),
        "model": None if model is None else [str(model.resolve()), _stamps(model, "*")],
        "dictionaries": [
            [str(one.resolve()), _stamps(one, "*")] for one in experiment.dictionaries
        ],
        "package": _stamps(_PACKAGE, "**/*.py"),
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _task_file(task: str) -> Path:
    from mechspex.tasks.task_file import task_files

    return task_files().get(task, Path(task))


def _content(option: Any) -> Any:
    """An option; of a file its name and what it holds, wherever it lies."""
    if not isinstance(option, Path):
        return option
    return [option.stem, option.suffix, hashlib.sha256(option.read_bytes()).hexdigest()]


def _stamps(folder: Path, pattern: str) -> list[list[Any]]:
    """Name, size and time of change of every file: what tells that one was changed."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    stats = ((path, path.stat()) for path in files)
    return [[str(path.relative_to(folder)), s.st_size, s.st_mtime_ns] for path, s in stats]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _read(file: Path) -> dict[str, Any]:
    """The questions of a run; none where the file is missing or damaged."""
    from mechspex.core.json_values import read_json

    try:
        content = read_json(file)
    except Refused:
        return {}
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return {}
    questions = content.get("questions")
    questions = questions if isinstance(questions, dict) else {}
    return {digest: kept for digest, kept in questions.items() if _is_kept(kept)}


def _is_kept(entry: object) -> bool:
    """Whether an entry of the file says which answer is kept, and what is said with it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("answer"), dict):
        return False
    said = entry.get("said")
    return isinstance(said, list) and all(isinstance(line, str) for line in said)


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
