"""Every error that mechspex raises, at the place where users look for it."""

from mechspex.core.errors import (
    AblationError,
    BudgetError,
    DictionaryError,
    FailedMasksError,
    FetchError,
    MeasurementError,
    MechspexError,
    ModelError,
    Refused,
    RunError,
    ShapeError,
    StoreError,
    TaskError,
    UnknownUnitError,
    WorkerError,
)

__all__ = [
    "AblationError",
    "BudgetError",
    "DictionaryError",
    "FailedMasksError",
    "FetchError",
    "MeasurementError",
    "MechspexError",
    "ModelError",
    "Refused",
    "RunError",
    "ShapeError",
    "StoreError",
    "TaskError",
    "UnknownUnitError",
    "WorkerError",
]
