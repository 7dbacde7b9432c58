"""One forward of a plain model: where it begins, and what is done on the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

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
class Pass:
    """What the hooks of a plain model look at while one forward runs.

    Attributes:
        edits: made to activations.
        rows: how many rows the batch has.
        start: where it begins.
        read: tokens whose logits are wanted; None for all.
        n_last: how many of the last positions are read; None for all.
        keys: positions that are hidden from attention.
        at: which of those are unembedded in each row; None for all.
        wanted: blocks whose input is recorded, in `recorded`.
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
    wanted: Collection[int] = ()
    recorded: dict[int, Tensor] = field(default_factory=dict)
    parting: Mapping[int, Tensor] = field(default_factory=dict)
    attending: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
