"""The errors a user can meet: each names the offending value and the next step."""

from __future__ import annotations

# Characters of another error that a message shows.
_SHOWN = 100


class MechspexError(Exception):
    """Base of every error of this package; the command line exits with ``exit_code``."""

    exit_code = 1


class Refused(MechspexError, ValueError):
    """Bad input, refused before any compute is spent."""

    exit_code = 2


class ShapeError(Refused):
    """An array of the wrong width, length or dtype."""


class UnknownUnitError(Refused):
    """A head, neuron, layer or name that this model does not have."""


class ModelError(Refused):
    """A model that cannot be loaded, or that lacks what was asked of it."""


class DictionaryError(Refused):
    """A dictionary of latents that cannot be read, or that does not fit the model."""


class TaskError(Refused):
    """A task file or prompts that do not make a task for this model."""


class AblationError(Refused):
    """An ablation that cannot be carried out, or that cannot change the output."""


class BudgetError(Refused):
    """Fewer masks than a decoder needs."""


class RunError(Refused):
    """A run folder that cannot be used: not writable, in use, or made by another configuration."""


class FailedMasksError(MechspexError):
    """Some masks have no finite value."""

    exit_code = 3


class StoreError(MechspexError):
    """A run store that is damaged or cannot be written."""


class FetchError(MechspexError):
    """A model that could not be fetched, or whose content is not the pinned one."""


class MeasurementError(MechspexError):
    """The model could not be measured: out of memory at one row, or no finite clean value."""


class WorkerError(MechspexError):
    """A worker of an executor that could not be started, was lost again and again, or failed."""


def in_short(error: BaseException) -> str:
    """What an error says, without the long content that some quote: SQLite a whole damaged row."""
    text = " ".join(str(error).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
