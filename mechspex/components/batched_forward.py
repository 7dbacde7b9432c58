"""Many masks on prompts of one length, in forwards that fit in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechspex.components.cached_forward import CachedForward
from mechspex.components.edge_ablation import EdgeAblation
from mechspex.components.edge_patterns import recomputed_slopes
from mechspex.components.masked_forward import MaskedForward, Masks
from mechspex.core.backward_rules import CHAIN, BackwardRules
from mechspex.core.checks import told
from mechspex.core.errors import ShapeError, TaskError
from mechspex.forward.attention_kernel import with_gradients
from mechspex.forward.backward_pass import BackwardPass, Places
from mechspex.forward.batch_size import BatchSize, unless_out_of_memory
from mechspex.forward.patterns import Patterns
from mechspex.forward.thread_count import threads_that_pay
from mechspex.models.bridge import HookWatch
from mechspex.tasks.metrics import AllPositions, Continuations, LogitDifference, Metric


@dataclass(frozen=True)
class BatchedForward:
    """The metric of every mask on every prompt of one token length.

    A prompt has a row of tokens, or several where its continuations need them.

    Attributes:
        prompts: their numbers in the task.
        length: their length in tokens, without what is forced after them.
        metric: the task's metric.
        plain: the forward through the bridge.
        cached: the forward without the bridge; taken where there is one, unless `hooks` sees any.
        hooks: watches the bridge.
        size: how many tokens one forward takes.
        gradient_size: how many one with gradients takes, which holds every block's activations.
        rules: by which gradients are made.
    """

    prompts: tuple[int, ...]
    length: int
    metric: Metric
    plain: MaskedForward
    cached: CachedForward | None
    hooks: HookWatch
    size: BatchSize
    gradient_size: BatchSize
    rules: BackwardRules = CHAIN

    @classmethod
    def of(
        cls,
        prompts: tuple[int, ...],
        length: int,
        metric: Metric,
        plain: MaskedForward,
        hooks: HookWatch,
    ) -> BatchedForward:
        """Through the bridge."""
        sizes = _size(plain), _size(plain, with_gradients=True)
        return cls(prompts, length, metric, plain, None, hooks, *sizes)

    @property
    def n_sequences(self) -> int:
        """Rows a prompt."""
        return len(self.plain.tokens) // len(self.prompts)

    def without_bridge(self, cached: CachedForward) -> BatchedForward:
        """The same on the model's plain_model."""
        return replace(self, cached=cached, size=_size(self.plain))

    def with_backward(self, rules: BackwardRules) -> BatchedForward:
        """The same with gradients by other rules."""
        by_rules = replace(self, rules=rules)
        if by_rules._recomputes:
            n_blocks = self.plain.model.cfg.n_layers
            # A pattern and its like, and its gradient in each pass.
            n_each = 3 + (n_blocks if rules.blocks_dropped else 0)
            size = _size(self.plain, with_gradients=True, patterns=n_each)
            by_rules = replace(by_rules, gradient_size=size)
        return by_rules

    def values(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask prompt"]:
        """Values of all masks, in the metric's units.

        Raises:
            MeasurementError: out of memory even for one mask on one prompt.
        """
        cached = self.usable()
        values = np.empty((len(masks), len(self.prompts)), dtype=np.float32)
        if cached is None:
            start = np.zeros(len(masks), dtype=int)
            return self._fill(values, masks, start, start, self.size, partial(self._forward, None))
        for way in cached.ways(masks):
            values[way.masks] = self._fill(
                values[way.masks],
                masks[way.masks],
                way.blocks,
                way.positions,
                self.size,
                partial(self._forward, way.forward),
            )
        return values

    def values_and_gradients(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> Float[np.ndarray, "mask prompt value_and_unit"]:
        """Values of soft masks, each followed by its gradient in the mask.

        Raises:
            MeasurementError: out of memory even for one mask on one prompt.
        """
        cached = self.usable()
        n_masks, n_units = masks.shape
        blocks = np.full(n_masks, 0 if cached is None else cached.first_block)
        positions = np.zeros(n_masks, dtype=int)
        both = np.empty((n_masks, len(self.prompts), 1 + n_units), dtype=np.float32)
        measure = partial(self._forward_and_back, cached)
        return self._fill(both, masks, blocks, positions, self.gradient_size, measure)

    def usable(self) -> CachedForward | None:
        """The forward without the bridge, unless there is none or the bridge carries hooks."""
        return None if self.hooks.sees_any() else self.cached

    def _fill(
        self,
        results: np.ndarray,
        masks: np.ndarray,
        blocks: Int[np.ndarray, " mask"],
        positions: Int[np.ndarray, " mask"],
        size: BatchSize,
        measure: Callable[[Tensor, slice, int, int], Tensor],
    ) -> np.ndarray:
        """`results` ``[mask, prompt, …]``, filled by forwards that begin where their masks do.

        Args:
            blocks, positions: where each mask begins.
            measure: (masks ``[mask, 1, unit]``, some of the prompts, block, position) → results.
        """
        n_prompts, length = len(self.prompts), self.plain.tokens.shape[1]
        n_blocks = self.plain.model.cfg.n_layers
        # Masks that begin alike share a forward, which begins where the first of them does.
        order = np.lexsort((blocks, positions))
        done = 0
        while done < len(order):
            position = int(positions[order[done]])
            # The tokens that one mask on one prompt takes.
            window = self.n_sequences * (length - position)
            fitting = max(1, size.tokens // window)
            # In the order asked for: the next masks are likely to begin like the last of these.
            batch = np.sort(order[done : done + max(1, fitting // n_prompts)])
            block = int(blocks[batch].min())
            at_once = min(fitting, n_prompts)
            with threads_that_pay(self.plain.tokens.device):
                start = time.perf_counter()
                measured = unless_out_of_memory(
                    partial(self._measure_batch, measure, masks[batch], at_once, block, position)
                )
                seconds = time.perf_counter() - start
            if measured is None:
                # Outside the except block, so that the failed forward's tensors are freed.
                size.ran_out(len(batch) * at_once, window)
                continue
            if at_once == n_prompts:
                tokens = len(batch) * n_prompts * window
                size.took(tokens, tokens * (n_blocks - block), seconds)
            results[batch] = measured
            done += len(batch)
        return results

    def _measure_batch(
        self,
        measure: Callable[[Tensor, slice, int, int], Tensor],
        masks: np.ndarray,
        prompts_at_once: int,
        block: int,
        position: int,
    ) -> np.ndarray:
        """A few masks on all prompts, as many prompts a forward as fit."""
        on_device = torch.from_numpy(masks).to(self.plain.tokens.device)[:, None]
        starts = range(0, len(self.prompts), prompts_at_once)
        parts = [slice(i, min(i + prompts_at_once, len(self.prompts))) for i in starts]
        measured = [measure(on_device, part, block, position).cpu() for part in parts]
        return torch.cat(measured, dim=1).numpy()

    def _forward_and_back(
        self, cached: CachedForward | None, masks: Tensor, part: slice, block: int, position: int
    ) -> Float[Tensor, "mask prompt value_and_unit"]:
        """Values of some soft masks on some prompts, each followed by its gradient."""
        # One leaf a prompt, so that the gradients of the prompts stay apart.
        n_prompts = part.stop - part.start
        soft = repeat(masks, "mask 1 unit -> mask prompt unit", prompt=n_prompts)
        soft = soft.clone().requires_grad_()
        tokens, hides = self.plain.tokens, self.plain.ablation.words is not None
        dtype = self.plain.model.cfg.dtype if cached is None else cached.plain_model.module.dtype
        attention = with_gradients(tokens.device, tokens.shape[1], dtype, hides=hides)
        with torch.enable_grad(), attention:
            of_rows = repeat(
                soft, "mask prompt unit -> mask (prompt sequence) unit", sequence=self.n_sequences
            )
            if not self.rules:
                values = self._forward(cached, of_rows, part, block, position)
                (gradients,) = torch.autograd.grad(values.sum(), soft)
            else:
                backward = BackwardPass(
                    self.rules, self._places(cached), keeps_patterns=self._recomputes
                )
                with backward.applied():
                    values = self._forward(cached, of_rows, part, block, position)
                passes, patterns = backward.passes(values.sum(), soft)
                if self._recomputes:
                    self._recompute(passes, patterns, cached, of_rows.detach(), part)
                gradients = backward.combined(passes)
        return torch.cat([values.detach()[..., None], gradients.float()], dim=-1)

    @property
    def _recomputes(self) -> bool:
        """Whether attention patterns are taken anew without each edge into a query or key."""
        is_edges = isinstance(self.plain.ablation, EdgeAblation)
        return is_edges and self.rules.pattern_recomputed

    def _recompute(
        self,
        passes: Sequence[Float[Tensor, "mask prompt unit"]],
        patterns: Patterns,
        cached: CachedForward | None,
        masks: Float[Tensor, "mask row unit"],
        part: slice,
    ) -> None:
        """Put the slopes of edges into queries and keys into each gradient of `passes`."""
        ablation = self.plain.ablation if cached is None else cached.ablation
        assert isinstance(ablation, EdgeAblation)

        def run(moved: Tensor) -> None:
            # What is whole up to a block begins there.
            whole = (moved == 1).flatten(0, 1).cpu().numpy()
            block = 0 if cached is None else int(cached.starts(whole)[0].min())
            self._forward(cached, moved, part, block, 0)

        for columns, slopes in recomputed_slopes(ablation.sites, masks, patterns, run):
            of_prompts = reduce(
                slopes,
                "n mask (prompt sequence) edge -> n mask prompt edge",
                "sum",
                sequence=self.n_sequences,
            )
            for gradients, anew in zip(passes, of_prompts, strict=True):
                gradients[..., columns] = anew.to(gradients)

    def _places(self, cached: CachedForward | None) -> Places:
        ablation = self.plain.ablation if cached is None else cached.ablation
        norms = ablation.norms if isinstance(ablation, EdgeAblation) else ()
        return Places.of(self.plain.model, None if cached is None else cached.plain_model, norms)

    def _forward(
        self, cached: CachedForward | None, masks: Masks, part: slice, block: int, position: int
    ) -> Float[Tensor, "mask prompt"]:
        """Values of some masks on some prompts, in one forward."""
        numbers = torch.tensor(self.prompts[part], device=self.plain.tokens.device)
        prompts = repeat(numbers, "prompt -> (mask prompt)", mask=len(masks))
        rows = slice(part.start * self.n_sequences, part.stop * self.n_sequences)
        metric, read = self.metric, None
        if cached is None:
            logits = self.plain(masks, rows)
        else:
            if isinstance(metric, LogitDifference):
                metric, read = metric.reading_few()
            logits = cached(masks, rows, block=block, position=position, read=read)
        values = checked_values(metric, logits, prompts)
        return rearrange(values, "(mask prompt) -> mask prompt", mask=len(masks))


def _tensor_of(returned: object, logits: Tensor, n_prompts: int) -> Tensor:
    """What a metric returned, which may be an array of numpy or a list, as a tensor."""
    try:
        values = torch.as_tensor(returned, device=logits.device)
    except (TypeError, ValueError, RuntimeError):
        raise ShapeError(
            f"the metric returned {told(returned)}, which are no numbers; return a tensor of "
            f"shape [{n_prompts}]"
        ) from None
    if logits.requires_grad and not values.requires_grad:
        raise TaskError(
            "the metric's values have no gradient, as they left torch; compute them with tensors, "
            "or ask for nothing that needs gradients"
        )
    return values


def checked_values(
    metric: Metric, logits: Float[Tensor, "row read vocabulary"], prompts: Int[Tensor, " prompt"]
) -> Float[Tensor, " prompt"]:
    """The metric of every prompt, from the logits of its rows.

    Args:
        metric: the metric.
        logits: the logits that are read; row: (prompt sequence).
        prompts: the number of each prompt.

    Raises:
        ShapeError: the metric returned anything but one number a prompt.
    """
    if isinstance(metric, Continuations):
        each = rearrange(
            logits, "(prompt sequence) ... -> prompt sequence ...", prompt=len(prompts)
        )
        returned = metric(each, prompts)
    elif isinstance(metric, AllPositions):
        returned = metric(logits, prompts)
    else:
        returned = metric(logits[:, -1], prompts)
    values = _tensor_of(returned, logits, len(prompts))
    if values.shape != prompts.shape:
        raise ShapeError(
            f"the metric returned shape {list(values.shape)} for {len(prompts)} rows of "
            f"logits; return one number a row, [{len(prompts)}]"
        )
    return values.float()


def _size(plain: MaskedForward, *, with_gradients: bool = False, patterns: int = 0) -> BatchSize:
    cfg, (_, length) = plain.model.cfg, plain.tokens.shape
    # The widest moment of a block: the residual stream, the MLP's inside, the scores.
    widest = 8 * cfg.d_model + 4 * (cfg.d_mlp or 4 * cfg.d_model) + 2 * cfg.n_heads * length
    floats = widest + plain.ablation.floats_per_token
    if with_gradients:
        floats = widest * cfg.n_layers + plain.ablation.floats_per_token_with_gradients
    floats += patterns * cfg.n_layers * cfg.n_heads * length
    return BatchSize(plain.tokens.device, bytes_per_token=4 * floats)
