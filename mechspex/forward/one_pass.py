"""One forward of a plain model: where it begins, and what is done on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from mechspex.models.bridge import Edits
from mechspex.models.hidden_keys import HiddenKeys


@dataclass(frozen=True)
class Start:
    """Where a forward may begin, because all before it is as in a pass that was recorded.

    Attributes:
        block: the first block that is run.
        entering: what enters it, ``[row, pos, d_model]``, at the positions that are run.
        cache: keys and values ``[prompt, head, pos, d_head]`` of the positions before those, one
            pair a block; empty where every position is run.
    """

    block: int
    entering: Float[Tensor, "row pos d_model"] | None
    cache: Sequence[tuple[Tensor, Tensor]]


FROM_THE_EMBEDDING = Start(0, None, ())


@dataclass(frozen=True)
class Recording:
    """What is kept of a pass: what enters some of its blocks.

    Attributes:
        rows: {block: the rows wanted}.
        entering: {block: what entered it, ``[row, pos, d_model]``}, filled while the pass runs.
    """

    rows: Mapping[int, slice] = field(default_factory=dict)
    entering: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """What the wrapped modules of a plain model look at while one forward runs.

    Attributes:
        edits: made to activations.
        rows: how many rows the batch has.
        start: where it begins.
        read: tokens whose logits are wanted; None for all.
        n_last: how many of the last positions are read; None for all.
        keys: positions that are hidden from attention.
        at: which of those are unembedded in each row; None for all.
        recording: what is kept of it.
        parting: {block: the row of the block before that each of its rows comes from}.
        attending: {block: the rows whose attention is run, and which of these each row takes}.
    """

    edits: Edits = field(default_factory=dict)
    rows: int = 0
    start: Start = FROM_THE_EMBEDDING
    read: Tensor | None = None
    n_last: int | None = None
    keys: HiddenKeys | None = None
    at: Tensor | None = None
    recording: Recording = field(default_factory=Recording)
    parting: Mapping[int, Tensor] = field(default_factory=dict)
    attending: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def edited(self, hook: str, there: Any, n_units: int | None = None) -> Any:
        """What goes on from a hook point: all that is there, where nothing edits it.

        Args:
            hook: the hook point.
            there: the activation ``[row, pos, d]``, or a tuple that begins with it.
            n_units: how many units come joined in d; None where no edit tells them apart.
        """
        edit = self.edits.get(hook)
        if edit is None:
            return there
        if isinstance(there, tuple):
            return (self.edited(hook, there[0], n_units), *there[1:])
        # OPT hands its MLP flattened rows.
        rows = there.reshape(self.rows, -1, there.shape[-1])
        if n_units is not None:
            rows = rearrange(rows, "row pos (unit d) -> row pos unit d", unit=n_units)
        return edit(rows).reshape(there.shape)


class PassAtHand:
    """The pass that a plain model runs now: all its wrapped modules look at this one holder.

    Attributes:
        now: the pass, which may go on with other rows; an empty one between two.
    """

    def __init__(self) -> None:
        self.now = Pass()

    @contextmanager
    def running(self, one: Pass) -> Iterator[None]:
        """A pass is at hand meanwhile, and then again the one before.

        Args:
            one: the pass.
        """
        before, self.now = self.now, one
        try:
            yield
        finally:
            self.now = before
