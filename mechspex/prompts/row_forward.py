"""Many rows of tokens, of any lengths, in as few tokens of forwards as they take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from operator import is_

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from mechspex.core.errors import MeasurementError, ModelError
from mechspex.forward.batch_size import BatchSize, unless_out_of_memory
from mechspex.forward.plain_model import PlainModel
from mechspex.forward.rounding import rounding_of
from mechspex.forward.thread_count import threads_that_pay
from mechspex.models.bridge import HookWatch, can_keep_last_logits, edited_logits
from mechspex.models.load_model import Model
from mechspex.models.weights import weights_of
from mechspex.prompts.row_batches import Batch, Row, Rows

_log = logging.getLogger(__name__)

Read = Callable[[Float[Tensor, "row read vocabulary"]], Float[Tensor, "row value"]]
"""What is made of the logits that are read."""

_Known = tuple[Row, list[tuple[Tensor, Tensor]]]
"""A row, and every block's keys and values of it."""

# Tokens of the rows that are brought into order together: memory does not grow with their number.
_TOGETHER = 1 << 20


class RowForward:
    """A model on rows of tokens, each read at its last positions.

    Rows are measured on a copy of the model without its bridge, once `prove` has shown that it
    gives the bridge's own values; else, and while the bridge carries hooks, through the bridge.
    What the rows of a forward begin with in common is computed once, or taken from the forward
    before.

    Args:
        model: the bridge of a causal model.
        length: how long the longest rows are, in tokens.
        n_read: how many positions of a row are unembedded.

    Attributes:
        through_bridge: why rows go through the bridge; None where they do not.
        tokens_run: how many tokens were run so far.
        users_hooks: the hooks of the user's that the bridge carried at first.

    Raises:
        ModelError: a model that is no causal one.
    """

    def __init__(self, model: Model, length: int, n_read: int) -> None:
        own = model.original_model
        if isinstance(own, PreTrainedModel) and not can_keep_last_logits(own):
            raise ModelError(
                f"{model.cfg.model_name} does not write texts from left to right, so no response "
                "can be scored; choose a causal language model"
            )
        self.model = model
        self.through_bridge: str | None = None
        self.tokens_run = 0
        self._plain: PlainModel | None = None
        self._hooks = HookWatch(model)
        self.users_hooks, self._weights = self._hooks.users(), weights_of(model)
        self._device = next(own.parameters()).device
        self._size = BatchSize(self._device, _bytes_per_token(model, length, n_read))
        self._first: _Known | None = None
        self._known: _Known | None = None

    @property
    def has_changed(self) -> bool:
        """Whether the model has other weights now, or carries other hooks of the user's."""
        now = self._hooks.users()
        same = len(now) == len(self.users_hooks) and all(map(is_, now, self.users_hooks))
        return not same or weights_of(self.model) != self._weights

    def prove(self, rows: Sequence[Row], n_read: int) -> float:
        """Do without the bridge if that gives the bridge's own logits on these rows.

        Args:
            rows: the rows; every call begins with what the first of them has computed.
            n_read: how many of the last positions are compared.

        Returns:
            By how much rounding may move a logit.

        Raises:
            MeasurementError: logits of the untouched model that are not finite.
        """
        with torch.no_grad():
            own = [self._of_bridge(torch.tensor(row[None]), n_read)[0] for row in rows]
        largest = max(float(one.abs().max()) for one in own)
        if not np.isfinite(largest):
            raise MeasurementError(
                "the model's logits are not finite; look at the prompt and dtype"
            )
        rounding = rounding_of(own[0].dtype, largest)
        for fused in (True, False):
            try:
                with torch.inference_mode(False), torch.no_grad():
                    self._plain = PlainModel(self.model, self.model.cfg.dtype, fused=fused)
                    self._first = self._known = None
                    self._keys_and_values(rows[0])
                    self._first = self._known
                copied = self(rows, n_read, lambda logits: logits.flatten(1))
            except MeasurementError:
                raise
            except Exception as error:  # whatever a foreign model class stumbles over
                self.through_bridge = str(error)
                break
            expected = torch.stack([one.flatten().float() for one in own]).cpu().numpy()
            apart = float(np.abs(copied - expected).max())
            if apart <= rounding:
                self.through_bridge = None
                return rounding
            self.through_bridge = f"logits without it are off by {apart:.2g}"
        self._plain = self._first = None
        name = self.model.cfg.model_name
        _log.info("%s is measured through its bridge: %s", name, self.through_bridge)
        return rounding

    @torch.inference_mode()
    def __call__(
        self, rows: Sequence[Row], n_read: int, read: Read
    ) -> Float[np.ndarray, "row value"]:
        """What is read of each row.

        Args:
            rows: their tokens.
            n_read: how many of the last positions of each are read.
            read: makes values of the logits there.

        Raises:
            MeasurementError: out of memory even for one row.
        """
        # Not with what the call before left: the same call gives the same bits.
        self._known = self._first
        parts, first, total = [], 0, 0
        for number, row in enumerate(rows):
            if total and total + len(row) > _TOGETHER:
                parts.append(self._measured(Rows(rows[first:number], n_read), read))
                first, total = number, 0
            total += len(row)
        return np.concatenate([*parts, self._measured(Rows(rows[first:], n_read), read)])

    @torch.inference_mode()
    def written(self, row: Row, n_tokens: int, stop: Collection[int]) -> list[int]:
        """The likeliest tokens after a row, one after another, up to one of `stop`.

        Args:
            row: its tokens.
            n_tokens: how many tokens at most.
            stop: tokens that end a text.
        """
        tokens: list[int] = []
        through_copy = self._plain is not None and not self._hooks.sees_any()
        pairs = self._keys_and_values(row[:-1]) if through_copy else []
        while len(tokens) < n_tokens:
            rest = [int(row[-1]), *tokens] if through_copy else [*row.tolist(), *tokens]
            last = torch.tensor([rest], device=self._device)
            if through_copy:
                assert self._plain is not None
                at = torch.tensor([[len(rest) - 1]], device=self._device)
                logits = self._plain.logits_at(last, at, before=pairs)
            else:
                logits = self._of_bridge(last, 1)
            likeliest = int(logits[0, -1].argmax())
            if likeliest in stop:
                break
            tokens.append(likeliest)
        return tokens

    def _measured(self, rows: Rows, read: Read) -> np.ndarray:
        values: np.ndarray | None = None
        for batch, measured in self._batches(rows, read):
            if values is None:
                values = np.empty((len(rows.lengths), measured.shape[1]), dtype=measured.dtype)
            values[batch.rows] = measured
        assert values is not None
        return values

    def _batches(self, rows: Rows, read: Read) -> Iterator[tuple[Batch, np.ndarray]]:
        if self._plain is None or self._hooks.sees_any():
            for batch in rows.of_one_length(self._size.tokens):
                tokens = torch.from_numpy(rows.tokens[batch.rows, : batch.length]).long()
                self.tokens_run += batch.n_tokens
                yield batch, _array(read(self._of_bridge(tokens, rows.n_read)))
            return
        order = rows.in_order(self._size.tokens)
        while len(order):
            known = 0 if self._known is None else rows.shared_with(int(order[0]), self._known[0])
            batch = rows.next_batch(order, self._size.tokens, known)
            with threads_that_pay(self._device):
                start = time.perf_counter()
                measured = unless_out_of_memory(partial(self._of_copy, rows, batch, read))
                seconds = time.perf_counter() - start
            if measured is None:
                # Outside the except block, so that the failed forward's tensors are freed.
                self._known = None
                self._size.ran_out(len(batch.rows), batch.length - batch.prefix)
                continue
            n_tokens = batch.n_tokens
            self._size.took(n_tokens, n_tokens, seconds)
            self.tokens_run += n_tokens
            yield batch, measured
            order = order[len(batch.rows) :]

    def _of_bridge(self, tokens: Int[Tensor, "row pos"], n_read: int) -> Tensor:
        return edited_logits(self.model, tokens.to(self._device).long(), {}, n_read)

    def _of_copy(self, rows: Rows, batch: Batch, read: Read) -> np.ndarray:
        assert self._plain is not None
        before = self._keys_and_values(rows.tokens[batch.rows[0], : batch.prefix])
        tokens = rows.tokens[batch.rows, batch.prefix : batch.length]
        lengths = rows.lengths[batch.rows, None] - batch.prefix
        # Any token would do; one that the row has cannot be a special one.
        tokens = np.where(tokens < 0, tokens[:, :1], tokens)
        at = torch.from_numpy(lengths - rows.n_read + np.arange(rows.n_read))
        on_device = torch.from_numpy(tokens).long().to(self._device)
        return _array(read(self._plain.logits_at(on_device, at.to(self._device), before=before)))

    def _keys_and_values(self, row: Row) -> list[tuple[Tensor, Tensor]]:
        """Those of a row, from what is known of the one before."""
        if not len(row):
            return []
        assert self._plain is not None
        shared, pairs = 0, []
        if self._known is not None:
            known, pairs = self._known
            n = min(len(known), len(row))
            differs = known[:n] != row[:n]
            shared = int(differs.argmax()) if differs.any() else n
            pairs = [(keys[:, :, :shared], values[:, :, :shared]) for keys, values in pairs]
        if shared < len(row):
            rest = torch.from_numpy(row[None, shared:]).long().to(self._device)
            self.tokens_run += rest.shape[1]
            pairs = self._plain.keys_and_values(rest, pairs if shared else ())
            self._known = row.copy(), pairs
        return pairs


def _array(values: Tensor) -> np.ndarray:
    return (values.float() if values.is_floating_point() else values).cpu().numpy()


def _bytes_per_token(model: Model, length: int, n_read: int) -> int:
    cfg = model.cfg
    # The widest moment of a block: the residual stream, the MLP's inside, the scores.
    widest = 8 * cfg.d_model + 4 * (cfg.d_mlp or 4 * cfg.d_model) + 2 * cfg.n_heads * length
    # What is read of a row: its logits, and two tables of their size that are made of them. Most
    # of a row may be shared.
    unembedded = 3 * cfg.d_vocab * min(1.0, 4 * n_read / length)
    return int(4 * (widest + unembedded))
