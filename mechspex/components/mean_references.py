"""Mean references: activations averaged over the positions of prompts that stand for each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor

from mechspex.components.alignment import FIRST, Spans, labels, segments
from mechspex.components.clean_pass import CleanPass
from mechspex.core.errors import AblationError
from mechspex.tasks.tokens import Tokens

References = Mapping[str, Float[Tensor, "#row #pos ..."]]
"""{hook: what replaces an ablated activation}."""


@dataclass(frozen=True, eq=False)
class Source:
    """The prompts over which means and draws are taken.

    Attributes:
        passes, tokens: their clean passes and tokens.
        own: whether they are the task's own.
    """

    passes: Sequence[CleanPass]
    tokens: Tokens
    own: bool

    @cached_property
    def places(self) -> dict[int, tuple[CleanPass, int]]:
        """{number of a prompt: its pass, and its place there}."""
        return {
            number: (one, place)
            for one in self.passes
            for place, number in enumerate(one.forced.prompts)
        }


def pieces_of(tokens: Tokens, *, use_spans: bool) -> list[dict[str, range]]:
    nothing: list[Spans] = [{}] * len(tokens.prompts)
    spans = tokens.spans if use_spans and tokens.spans is not None else nothing
    return [segments(len(p), named) for p, named in zip(tokens.prompts, spans, strict=True)]


def called_alike(
    tokens: Tokens, source: Source, *, everywhere: bool
) -> tuple[list[list[Hashable]], list[list[Hashable]]]:
    """What the positions of the task's prompts are called, and those of the source's."""
    # Without spans in both there is nothing to match spans with.
    use_spans = tokens.spans is not None and source.tokens.spans is not None
    pieces = pieces_of(tokens, use_spans=use_spans)
    others = [] if source.own else pieces_of(source.tokens, use_spans=use_spans)
    if everywhere:
        lengths = [sum(map(len, one.values())) for one in pieces + others]
        called: list[list[Hashable]] = [[FIRST, *["rest"] * (n - 1)] for n in lengths]
    else:
        called = labels(pieces + others)
    return called[: len(pieces)], called if source.own else called[len(pieces) :]


class Means:
    """Means over the positions of one name, of all source prompts.

    Args:
        source: the prompts.
        called: what their positions are called.
        leave_out: leave out the prompt itself.
    """

    def __init__(
        self, source: Source, called: Sequence[Sequence[Hashable]], *, leave_out: bool
    ) -> None:
        self._source, self._called, self._leave_out = source, called, leave_out
        names = list(dict.fromkeys(name for one in called for name in one))
        self._number = {name: number for number, name in enumerate(names)}

    def reference(
        self, hook: str, one: CleanPass, called: Sequence[Sequence[Hashable]]
    ) -> Float[Tensor, "#row pos ..."]:
        """What replaces the activations of a pass whose prompts' positions are called so.

        Args:
            hook: where the activations lie.
            one: the pass.
            called: what the positions of all prompts of the task are called.

        Raises:
            AblationError: positions that nothing of the source stands for.
        """
        missing = {name for j in one.forced.prompts for name in called[j]} - self._number.keys()
        if missing:
            raise AblationError(
                f"the calibration prompts have nothing in place of {sorted(map(str, missing))}; "
                "give calibration prompts that have it"
            )
        numbers = [[self._number[name] for name in called[j]] for j in one.forced.prompts]
        if self._one_by_one and not self._leave_out:
            (source,) = self._source.passes
            activations = source.on_prompts(hook)
            prompts = activations.float().mean(0, keepdim=True).to(activations.dtype)
            prompts = prompts[:, numbers[0]]
        else:
            alike = all(row == numbers[0] for row in numbers) and not self._leave_out
            chosen = one.forced.prompts[:1] if alike else one.forced.prompts
            means = [self._mean(hook, j if self._leave_out else None) for j in chosen]
            means = means if self._leave_out else [self._mean(hook, None)] * len(chosen)
            prompts = torch.stack(
                [mean[row] for mean, row in zip(means, numbers[: len(chosen)], strict=True)]
            )
        return with_forced(prompts, one, lambda j: self._after(hook, j))

    @cached_property
    def _one_by_one(self) -> bool:
        """Whether all source prompts are alike, each of their positions with a name of its own."""
        first = list(self._called[0])
        alike = all(list(other) == first for other in self._called)
        return alike and len(set(first)) == len(first) and len(self._source.passes) == 1

    def _mean(self, hook: str, without: int | None) -> Tensor:
        """``[name, …]``, the means of all names."""
        total, count = self._sums(hook)
        if without is not None:
            own, n_own = self._sum_of(hook, without)
            total, count = total - own, count - n_own
        if not bool((count > 0).all()):
            raise AblationError(
                "'leave_one_out': a prompt is the only one with some piece of it; give more "
                "prompts of its kind, or choose 'position_mean' or 'zero'"
            )
        some = self._source.passes[0].activations[hook]
        return (total / count.view(-1, *[1] * (total.ndim - 1))).to(some.dtype)

    def _sums(self, hook: str) -> tuple[Tensor, Tensor]:
        parts = [self._sum_of(hook, number) for number in self._source.places]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)  # type: ignore[return-value]

    def _sum_of(self, hook: str, number: int) -> tuple[Tensor, Tensor]:
        one, place = self._source.places[number]
        activations = one.on_prompts(hook)[place].float()
        names = torch.tensor([self._number[name] for name in self._called[number]])
        names = names.to(activations.device)
        total = activations.new_zeros(len(self._number), *activations.shape[1:])
        count = activations.new_zeros(len(self._number))
        return (
            total.index_add_(0, names, activations),
            count.index_add_(0, names, torch.ones_like(names, dtype=count.dtype)),
        )

    def _after(self, hook: str, number: int) -> Tensor:
        """The mean over what is forced after prompts; over their ends where nothing is."""
        leave = self._leave_out and self._source.own
        forced = [
            rows
            for one in self._source.passes
            for j, rows in zip(one.forced.prompts, one.after_prompts(hook), strict=True)
            if len(rows) and not (leave and j == number)
        ]
        if not forced:
            forced = [one.on_prompts(hook)[:, -1] for one in self._source.passes]
        return torch.cat(forced).float().mean(0)[None].to(forced[0].dtype)


def with_forced(
    prompts: Float[Tensor, "#prompt pos ..."],
    one: CleanPass,
    after: Callable[[int], Float[Tensor, "step ..."]],
) -> Float[Tensor, "#row all_pos ..."]:
    """References of prompts, followed by those of what is forced after them, row by row."""
    if not one.n_forced:
        return prompts
    n = one.forced.n_sequences
    wide = prompts.expand(len(one.forced.prompts), *prompts.shape[1:])
    steps = []
    for number in one.forced.prompts:
        found = after(number)
        steps.append(found[torch.arange(one.n_forced) * len(found) // one.n_forced])
    both = torch.cat([wide, torch.stack(steps).to(wide)], dim=1)
    return repeat(both, "prompt ... -> (prompt sequence) ...", sequence=n)
