"""What a worker does with a request, however that reached it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from mechspex.core.errors import WorkerError
from mechspex.core.masks import unpack
from mechspex.core.recipe import Recipe
from mechspex.core.value_function import ValueFunction, as_value_function, values_of
from mechspex.executors.messages import packed, unpacked

# What may be asked for: values, and the two kinds of gradients.
VALUES, EACH, MEAN = "__call__", "value_and_gradient", "value_and_mean_gradient"
# Value functions that a worker holds: a search and its tests have a few.
_HELD = 8
# Entries of a configuration that are measured, in which batches and devices may round otherwise.
_MEASURED = ("clean", "clean and ablated")


class Measurer:
    """Makes value functions by their recipes, and measures masks with them."""

    def __init__(self) -> None:
        self._held: dict[str, ValueFunction] = {}
        self._loads = ""

    def answer(self, request: bytes) -> bytes:
        """The answer to a request: arrays, that the value function is unknown, or an error."""
        try:
            header, arrays = unpacked(request)
            if "recipe" in header:
                self._make(header)
                return packed({})
            if header["of"] not in self._held:
                return packed({"unknown": True})
            # The one that was asked last is dropped last.
            values = self._held[header["of"]] = self._held.pop(header["of"])
            start = time.perf_counter()
            answered = _asked(values, header["ask"], arrays[0])
            return packed({"seconds": time.perf_counter() - start}, *answered)
        except Exception as error:
            return packed({"error": _told(error)})

    def _make(self, header: Mapping[str, Any]) -> None:
        recipe = Recipe(**header["recipe"])
        if recipe.loads != self._loads:
            # Two models may not fit.
            self._held.clear()
        self._loads = recipe.loads
        values = as_value_function(recipe.make())
        _check_same(header["configuration"], values.configuration)
        while len(self._held) >= _HELD:
            self._held.pop(next(iter(self._held)))
        self._held[header["of"]] = values


def _asked(values: ValueFunction, ask: str, masks: np.ndarray) -> tuple[np.ndarray, ...]:
    if ask == VALUES:
        whole = unpack(masks, values.n_units)
        return (values_of(values(whole), len(whole), len(values.outputs)),)
    return (
        values.value_and_gradient(masks) if ask == EACH else values.value_and_mean_gradient(masks)
    )


def _check_same(asked: Mapping[str, str], here: Mapping[str, str]) -> None:
    """A worker never measures another model than the one that is asked about.

    Raises:
        WorkerError: what was made has another configuration.
    """
    differing = [
        f"{key}: {asked.get(key)} asked, {here.get(key)} made"
        for key in sorted({*asked, *here} - {*_MEASURED})
        if asked.get(key) != here.get(key)
    ]
    if differing:
        raise WorkerError(
            f"a worker makes other values by the recipe ({'; '.join(differing)}); a model that was "
            "changed in memory is saved to a folder, with its tokenizer, and loaded from there"
        )


def _told(error: Exception) -> dict[str, str]:
    trace = "".join(traceback.format_exception(error))
    return {"kind": type(error).__name__, "text": str(error), "trace": trace}
