"""Values of many masks on prompts of one length, in forwards that fit in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechspex.batch_size import BatchSize
from mechspex.errors import ShapeError
from mechspex.masked_forward import MaskedForward, Masks
from mechspex.metrics import LogitDifference, Metric
from mechspex.models import HookWatch
from mechspex.short_forward import ShortForward

_T = TypeVar("_T")


@dataclass(frozen=True)
class BatchedForward:
    """The metric of every mask on every prompt of one token length.

    Attributes:
        prompts: their numbers in the task.
        metric: of the task.
        plain: the forward through the bridge.
        short: the forward on the model's twin; taken where it is given, unless `hooks` sees any.
        hooks: watches the bridge.
        size: of one forward.
        gradient_size: of one forward with gradients, which holds every block's activations.
    """

    prompts: tuple[int, ...]
    metric: Metric
    plain: MaskedForward
    short: ShortForward | None
    hooks: HookWatch
    size: BatchSize
    gradient_size: BatchSize

    @classmethod
    def of(
        cls, prompts: tuple[int, ...], metric: Metric, plain: MaskedForward, hooks: HookWatch
    ) -> BatchedForward:
        """Through the bridge."""
        blocks = plain.model.cfg.n_layers
        return cls(prompts, metric, plain, None, hooks, _size(plain), _size(plain, blocks=blocks))

    def shortened(self, short: ShortForward) -> BatchedForward:
        """The same on the model's twin."""
        return replace(self, short=short, size=_size(self.plain))

    def values(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask prompt"]:
        """Values of all masks, in the metric's units.

        Raises:
            MeasurementError: out of memory even for one mask on one prompt.
        """
        n_prompts, length = self.plain.tokens.shape
        short = self._usable()
        values = np.empty((len(masks), n_prompts), dtype=np.float32)
        blocks = positions = np.zeros(len(masks), dtype=int)
        if short is not None:
            blocks, positions = short.starts(masks)
        # Masks that begin alike share a forward, which begins where the first of them does.
        order = np.lexsort((blocks, positions))
        done = 0
        while done < len(order):
            position = int(positions[order[done]])
            window = length - position
            rows = max(1, self.size.tokens // window)
            batch = order[done : done + max(1, rows // n_prompts)]
            block = int(blocks[batch].min())
            at_once = min(rows, n_prompts)
            start = time.perf_counter()
            measured = _unless_out_of_memory(
                partial(self._batch, short, masks[batch], at_once, block, position)
            )
            if measured is None:
                # Outside the except block, so that the failed forward's tensors are freed.
                self.size.ran_out(len(batch) * at_once, window)
                continue
            if at_once == n_prompts:
                tokens = len(batch) * n_prompts * window
                work = tokens * (self.plain.model.cfg.n_layers - block)
                self.size.took(tokens, work, time.perf_counter() - start)
            values[batch] = measured
            done += len(batch)
        return values

    def value_and_gradient(
        self, mask: Float[Tensor, " unit"]
    ) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, "prompt unit"]]:
        """Values of one soft mask on all prompts, and their gradients in the mask.

        Raises:
            MeasurementError: out of memory even for one prompt.
        """
        n_prompts, length = self.plain.tokens.shape
        short = self._usable()
        block = 0 if short is None else short.first_block
        values, gradients = [], []
        while len(values) < n_prompts:
            done = len(values)
            rows = max(1, self.gradient_size.tokens // length)
            part = slice(done, min(done + rows, n_prompts))
            found = _unless_out_of_memory(partial(self._differentiate, short, mask, part, block))
            if found is None:
                self.gradient_size.ran_out(part.stop - part.start, length)
                continue
            values.extend(found[0])
            gradients.extend(found[1])
        return np.array(values), np.array(gradients)

    def _usable(self) -> ShortForward | None:
        return None if self.hooks.sees_any() else self.short

    def _batch(
        self,
        short: ShortForward | None,
        masks: np.ndarray,
        prompts_at_once: int,
        block: int,
        position: int,
    ) -> Float[np.ndarray, "mask prompt"]:
        """Values of a few masks, beginning at a block and a position."""
        on_device = torch.from_numpy(masks).to(self.plain.tokens.device)[:, None]
        parts = range(0, len(self.prompts), prompts_at_once)
        columns = [
            self._forward(short, on_device, slice(i, i + prompts_at_once), block, position).cpu()
            for i in parts
        ]
        return torch.cat(columns, dim=1).numpy()

    def _differentiate(
        self, short: ShortForward | None, mask: Tensor, part: slice, block: int
    ) -> tuple[np.ndarray, np.ndarray]:
        count = part.stop - part.start
        soft = mask.to(self.plain.tokens.device).expand(1, count, -1).clone().requires_grad_()
        with torch.enable_grad():
            value = self._forward(short, soft, part, block, 0)
            (gradient,) = torch.autograd.grad(value.sum(), soft)
        return value.detach()[0].cpu().numpy(), gradient[0].float().cpu().numpy()

    def _forward(
        self, short: ShortForward | None, masks: Masks, part: slice, block: int, position: int
    ) -> Float[Tensor, "mask prompt"]:
        """Values of some masks on some prompts, in one forward."""
        numbers = torch.tensor(self.prompts[part], device=self.plain.tokens.device)
        prompts = numbers.repeat(len(masks))
        metric, read = self.metric, None
        if short is None:
            logits = self.plain(masks, part)
        else:
            if isinstance(metric, LogitDifference):
                metric, read = metric.reading_few()
            logits = short(masks, part, block=block, position=position, read=read)
        return checked_values(metric, logits, prompts).view(len(masks), -1)


def _unless_out_of_memory(measure: Callable[[], _T]) -> _T | None:
    """What `measure` returns; None when memory did not suffice."""
    try:
        return measure()
    except (torch.OutOfMemoryError, MemoryError):
        return None
    except RuntimeError as error:  # the CPU allocator has no exception class of its own
        if "can't allocate memory" not in str(error):
            raise
        return None


def checked_values(metric: Metric, logits: Tensor, prompts: Tensor) -> Float[Tensor, " row"]:
    """The metric of every row.

    Raises:
        ShapeError: the metric returned anything but one number a row.
    """
    values = metric(logits, prompts)
    if values.shape != prompts.shape:
        raise ShapeError(
            f"the metric returned shape {list(values.shape)} for {len(prompts)} rows of "
            f"logits; return one number a row, [{len(prompts)}]"
        )
    return values.float()


def _size(plain: MaskedForward, blocks: int = 1) -> BatchSize:
    cfg, (_, length) = plain.model.cfg, plain.tokens.shape
    # The widest moment of a block: the residual stream, the MLP's inside, the scores.
    widest = 8 * cfg.d_model + 4 * (cfg.d_mlp or 4 * cfg.d_model) + 2 * cfg.n_heads * length
    return BatchSize(plain.tokens.device, bytes_per_token=4 * widest * blocks)
