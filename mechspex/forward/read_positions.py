"""Read positions and tokens: for these alone the last MLP and the unembedding are run."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from mechspex.forward.one_pass import PassAtHand
from mechspex.forward.position_wise import is_position_wise


def run_where_read(mlp: nn.Module, width: int, at_hand: PassAtHand) -> None:
    """Run the last block's MLP where logits are read alone: nothing else reads the others.

    Args:
        mlp: the module, whose forward is replaced if it maps each position by itself.
        width: d_model.
        at_hand: the pass.
    """
    run = mlp.forward

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        n_last = at_hand.now.n_last
        if n_last is None or args or kwargs or hidden.ndim != 3:
            return run(hidden, *args, **kwargs)
        # PyTorch multiplies strided inputs far slower.
        output = run(hidden[:, -n_last:].contiguous())
        # Zeros where nothing is read, so that the residual stream keeps its shape.
        return nn.functional.pad(output, (0, 0, hidden.shape[1] - n_last, 0))

    if is_position_wise(mlp, run, width):
        mlp.forward = forward


def read_columns(unembedding: nn.Linear, at_hand: PassAtHand) -> None:
    """Unembed the positions and the tokens alone that are read.

    Args:
        unembedding: the module, whose forward is replaced.
        at_hand: the pass.
    """
    run = unembedding.forward

    def forward(input: Tensor) -> Tensor:
        at, read = at_hand.now.at, at_hand.now.read
        input = (input if at is None else at_positions(input, at)).contiguous()
        if read is None:
            return run(input)
        bias = None if unembedding.bias is None else unembedding.bias[read]
        return nn.functional.linear(input, unembedding.weight[read], bias)

    unembedding.forward = forward


def at_positions(
    rows: Float[Tensor, "row pos d"], at: Int[Tensor, "row read"]
) -> Float[Tensor, "row read d"]:
    """What each row has at some positions of its own.

    Args:
        rows: the rows.
        at: the positions.
    """
    return rows.gather(1, at[..., None].expand(-1, -1, rows.shape[-1]))
