"""Loading what a run found, whatever kind of run it was."""

from __future__ import annotations

from pathlib import Path

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.discovery import Discovery
from mechspex.circuits.pruning import Pruning
from mechspex.circuits.verdicts import Verdicts
from mechspex.core.checks import PATH
from mechspex.core.doors import door
from mechspex.core.errors import Refused, StoreError
from mechspex.core.json_values import read_json
from mechspex.effects.repair_map import SelfRepair
from mechspex.effects.sweep_table import Sweep
from mechspex.effects.validation import Validation
from mechspex.experiments.reproduction import Reproduction
from mechspex.explanation.explanation import Explanation
from mechspex.explanation.model_difference import ModelDifference
from mechspex.runs.check_store import is_damaged
from mechspex.runs.result import RunResult
from mechspex.runs.run import SWEEP, folder_of
from mechspex.screening.candidates import Candidates

# Of several answers in one folder the first counts: what a later one rests on lies beside it.
KINDS: tuple[type[RunResult], ...] = (
    Explanation, Discovery, Circuit, Sweep, Pruning, SelfRepair, Validation, Candidates,
    ModelDifference, Verdicts, Reproduction,
)  # fmt: skip


@door(run=PATH)
def load(run: str | Path) -> RunResult:
    """The answer of a run: what the function that made it returned, and the shell printed.

    No model is loaded and nothing is measured.

    >>> import mechspex as mx
    >>> explanation = mx.load("ioi")  # doctest: +SKIP

    Args:
        run: the name of a run below ``$MECHSPEX_RUNS`` (``runs`` if unset), its folder, or the file
            of an answer.

    Returns:
        An `Explanation`, a `Discovery`, a `Circuit`, a `Sweep`, a `Pruning`, a `SelfRepair`, a
        `Validation`, `Candidates`, a `ModelDifference`, `Verdicts` or the `Reproduction` of a
        paper's figure.

    Raises:
        RunError: there is no such run.
        Refused: the run holds no answer, or one that this version cannot read.
        StoreError: it holds no answer, and its values are damaged.
    """
    file = Path(run)
    if file.is_file():
        return _of_file(file)
    folder = folder_of(run)
    for kind in KINDS:
        if (folder / kind.file).exists():
            return kind.load(folder)
    if (folder / SWEEP).exists():
        raise Refused(
            f"{folder} holds a sweep as a table alone: read {folder / SWEEP}, or give the sweep "
            "command again, which measures nothing anew"
        )
    if is_damaged(folder):
        raise StoreError(
            f"{folder} holds no answer, and its values are damaged; what is whole is told, and "
            f"saved, by: mechspex doctor {folder}"
        )
    raise Refused(
        f"{folder} holds values and no answer yet; give the command that measures them with --run "
        f"{folder.name}, which goes on from there and measures nothing twice"
    )


def _of_file(file: Path) -> RunResult:
    record = read_json(file)
    schema = record.get("schema") if isinstance(record, dict) else None
    for kind in KINDS:
        if schema in (kind.schema, *kind.older_schemas):
            return kind.load(file)
    known = ", ".join(kind.schema for kind in KINDS)
    raise Refused(f"{file} has schema {schema!r}, which is none of {known}")
