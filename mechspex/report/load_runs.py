"""The exact effects of a folder of runs, as one tidy table."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mechspex.core.checks import PATH, SEED
from mechspex.core.doors import door
from mechspex.core.errors import MechspexError, Refused, RunError
from mechspex.core.json_values import read_json, read_whole
from mechspex.core.provenance import Provenance
from mechspex.effects.sweep_table import Sweep
from mechspex.effects.validation import Validation
from mechspex.explanation.explanation import Explanation
from mechspex.report.collected import Collected, CollectedRow, unit_columns
from mechspex.runs.run import EXPERIMENT, SWEEP, runs_folder
from mechspex.runs.stored import Stored

# Answers that hold exact effects, the file of each in the folder of its run.
_KINDS = (Sweep, Explanation, Validation)


def _as_folders(name: str, given: Any) -> Any:
    """Reads one folder or several."""
    if isinstance(given, str | Path):
        return PATH(name, given)
    try:
        return [PATH(name, one) for one in given]
    except TypeError:
        raise Refused(f"{name}: give a folder of runs, or several folders") from None


@door(folder=_as_folders)
def load_runs(
    folder: str | Path | Iterable[str | Path] | None = None, *, per_prompt: bool = False
) -> Collected:
    """Every exact effect of all runs in a folder, in one table: a row a set of units and run.

    Sweeps, explanations and validations are read, in folders at any depth; no model is loaded. A
    run that was copied, or lies in two of the folders, counts once.

    >>> import mechspex as mx
    >>> table = mx.load_runs("runs").to_pandas()  # doctest: +SKIP
    >>> table.pivot_table("effect", "unit", ["task", "ablation"])  # doctest: +SKIP

    Args:
        folder: a folder of runs, or several; ``$MECHSPEX_RUNS`` (``runs`` if unset) if not given.
        per_prompt: a row a prompt in place of the mean over prompts.

    Raises:
        RunError: there is no such folder, or no run in it.
    """
    if folder is None:
        folders = [runs_folder()]
    else:
        folders = [Path(one) for one in ([folder] if isinstance(folder, str | Path) else folder)]
    rows: list[CollectedRow] = []
    unread, n_answers, read = [], 0, Counter[str]()
    for place, kind, file in _answers(folders):
        run = file.parent.relative_to(place).as_posix()
        name = place.name if run == "." else run
        try:
            answer = kind.load(file)
            read[digest := hashlib.sha256(file.read_bytes()).hexdigest()] += 1
            if read[digest] > 1:
                continue
            rows += _rows(answer, name, file.parent, per_prompt)
            n_answers += 1
        except MechspexError as error:
            unread.append(f"{name}: {error}")
    unread += [
        f"{file.parent.name}: a sweep as a table alone ({SWEEP})"
        for place in folders
        for file in sorted(place.rglob(SWEEP))
        if not (file.parent / Sweep.file).exists()
    ]
    if not rows and not unread:
        told = ", ".join(map(str, folders))
        raise RunError(f"no run in {told} holds exact effects; start one with: mechspex sweep ioi")
    return Collected(tuple(rows), n_answers, tuple(unread), read.total() - n_answers)


def _answers(folders: list[Path]) -> Iterator[tuple[Path, Any, Path]]:
    for place in folders:
        if not place.is_dir():
            raise RunError(f"no folder {place}; name a folder of runs")
        files = [(file, kind) for kind in _KINDS for file in place.rglob(kind.file)]
        for file, kind in sorted(files, key=lambda found: found[0].parts):
            yield place, kind, file


def _rows(answer: Any, run: str, folder: Path, per_prompt: bool) -> Iterator[CollectedRow]:
    configuration, clean, outputs, values = _told(answer, folder)
    provenance = Provenance.of(configuration)
    known = {
        "run": run,
        "answer": answer.called,
        "task": provenance.task,
        "model": provenance.model,
        "ablation": provenance.ablation,
        "metric": provenance.metric_name,
        "seed": _seed(folder, provenance),
        "prompts": answer.output_effects.shape[1],
    }
    tested = answer.validation if isinstance(answer, Explanation) else answer
    known["density"] = tested.keep
    spread = answer.output_effects.shape[1] > 1 or tested.contexts > 0
    errors = tested.standard_errors
    for row, term in enumerate(answer.terms):
        about = known | unit_columns(answer.units, term)
        effects, own = answer.output_effects[row], None if values is None else values[row]
        if not per_prompt:
            yield CollectedRow(
                **about,
                output=None,
                clean=_finite(np.mean(clean)),
                effect=_finite(effects.mean()),
                value=None if own is None else _finite(own.mean()),
                se=_finite(errors[row]) if spread else None,
            )
            continue
        for place, effect in enumerate(effects):
            yield CollectedRow(
                **about,
                output=outputs[place] if outputs else str(place),
                clean=_finite(clean[place]) if np.ndim(clean) else None,
                effect=_finite(effect),
                value=None if own is None else _finite(own[place]),
                se=None,
            )


def _told(
    answer: Any, folder: Path
) -> tuple[dict[str, str], Any, tuple[str, ...], np.ndarray | None]:
    """The configuration of an answer, its clean value, its outputs, and the values of its terms."""
    if isinstance(answer, Sweep):
        return answer.configuration, answer.clean, answer.outputs, answer.values
    if isinstance(answer, Explanation):
        # It was tested on other prompts than it was decoded from; their names are not kept.
        return answer.configuration, answer.clean, (), None
    told = dict(answer.configuration)
    # Earlier versions kept it beside the values alone.
    with suppress(MechspexError):
        told = told or Stored.open(folder).configuration
    return told, np.nan, (), None


def _seed(folder: Path, provenance: Provenance) -> int | None:
    """The seed that the command was given; of a call in Python that of the ablation, if any."""
    with suppress(MechspexError, KeyError, TypeError, ValueError):
        return SEED("seed", read_whole(read_json(folder / EXPERIMENT)["seed"]))
    return provenance.seed


def _finite(number: Any) -> float | None:
    return float(number) if np.isfinite(number) else None
