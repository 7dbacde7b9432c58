"""Labelled data as tensors, checked: what is trained on, and what is asked of the trained model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from mechspex.core.errors import Refused, ShapeError
from mechspex.training.examples import inputs_and_labels

IGNORED = -100
"""A label that counts for nothing: positions of a sequence that are not asked about."""


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Inputs and what is right about them.

    Attributes:
        inputs: ``[row, …]``, floating point or whole numbers (tokens).
        labels: classes ``int64[row, …]``, of sequences a label a position, `IGNORED` where nothing
            is asked; or numbers ``float[row]`` of a regression.
    """

    inputs: Num[Tensor, "row ..."]
    labels: Num[Tensor, "row ..."]

    @classmethod
    def read(cls, name: str, given: object) -> LabelledData:
        """Reads ``(inputs, labels)`` or a data set of scikit-learn.

        Raises:
            Refused: no rows, numbers that are not finite, labels that are no classes and no
                numbers.
        """
        if isinstance(given, LabelledData):
            return given
        inputs, labels = (
            _tensor(f"{name} ({part})", values)
            for part, values in zip(
                ("inputs", "labels"), inputs_and_labels(name, given), strict=True
            )
        )
        if not len(inputs):
            raise Refused(f"{name} is empty; give at least one example")
        if labels.ndim < 1 or (labels.is_floating_point() and labels.ndim > 1):
            raise ShapeError(f"labels of {name} have shape {list(labels.shape)}; give [row]")
        if not labels.is_floating_point():
            labels = labels.long()
            wrong = labels[(labels < 0) & (labels != IGNORED)]
            if len(wrong):
                raise Refused(
                    f"{name} has the label {int(wrong[0])}; give classes 0, 1, … (and "
                    f"{IGNORED} where nothing is asked)"
                )
            if labels.ndim > 1 and not bool((labels != IGNORED).flatten(1).any(dim=1).all()):
                raise Refused(f"a row of {name} has no label; leave it out")
        return cls(inputs, labels)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers, not classes."""
        return self.labels.is_floating_point()

    @property
    def n_classes(self) -> int:
        """One more than the largest class."""
        return int(self.labels.max()) + 1

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all numbers."""
        content = hashlib.sha256()
        for tensor in (self.inputs, self.labels):
            content.update(f"{tensor.dtype} {list(tensor.shape)};".encode())
            content.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
        return content.hexdigest()[:16]

    def features(self, device: torch.device, *, intercept: bool) -> Tensor:
        """The inputs as ``float64[row, feature]``, the last feature 1 with an intercept."""
        flat = self.inputs.to(device=device, dtype=torch.float64).flatten(1)
        if self.inputs.ndim == 1:
            flat = self.inputs.to(device=device, dtype=torch.float64)[:, None]
        return torch.cat([flat, torch.ones_like(flat[:, :1])], dim=1) if intercept else flat


def _tensor(name: str, values: Any) -> Tensor:
    try:
        if isinstance(values, Tensor):
            tensor = values.detach().cpu().clone()
        else:
            array = np.asarray(values)
            if array.dtype.kind in "US":
                raise Refused(f"{name} are texts; give numbers (classes are 0, 1, …)")
            # PyTorch takes no rows in reverse and no bytes in the other order.
            tensor = torch.as_tensor(np.array(array, array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise Refused(f"{name} are no array of numbers ({error}); give numbers") from None
    if tensor.is_complex():
        raise Refused(f"{name} are complex; give real numbers")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise Refused(f"{name} have numbers that are not finite; mend or leave out those rows")
    return tensor


def check_alike(data: LabelledData, targets: LabelledData) -> None:
    """Refuse targets that the model which is trained cannot be asked.

    Raises:
        ShapeError: inputs of another shape; `Refused`, numbers for classes or the reverse.
    """
    if data.inputs.shape[1:] != targets.inputs.shape[1:]:
        raise ShapeError(
            f"inputs of the targets have shape {list(targets.inputs.shape[1:])}, those of the "
            f"data set {list(data.inputs.shape[1:])}; give targets of the same shape"
        )
    if data.is_regression != targets.is_regression:
        kinds = {True: "numbers", False: "classes"}
        raise Refused(
            f"labels of the data set are {kinds[data.is_regression]}, those of the targets "
            f"{kinds[targets.is_regression]}; give both the same (classes are whole numbers)"
        )
