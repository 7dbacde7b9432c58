"""Clean passes: what the untouched model does on prompts, and on what is forced after them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from mechspex.components.latent_sites import LatentSite
from mechspex.core.errors import AblationError
from mechspex.models.bridge import edited_logits, in_parts
from mechspex.models.load_model import Model
from mechspex.tasks.metrics import AllPositions, Metric, bind_metric, reads_continuations
from mechspex.tasks.task import Task
from mechspex.tasks.teacher_forcing import ForcedRows, forced_rows
from mechspex.tasks.tokens import Tokens


def record(
    model: Model,
    hooks: Iterable[str],
    tokens: Int[Tensor, "row pos"],
    n_read: int = 1,
    latents: Sequence[LatentSite] = (),
) -> tuple[dict[str, Tensor], Float[Tensor, "row read vocabulary"]]:
    """Activations ``[row, pos, …]`` at `hooks`, and the logits that are read, of one clean forward.

    Args:
        model: the bridge.
        hooks: the hook points.
        tokens: the token ids.
        n_read: how many of the last positions are read.
        latents: dictionaries, of which the activations of latents are kept instead.

    Raises:
        AblationError: a hook point that the model does not have, or that never fires.
    """
    wanted = list(hooks)
    hooks = [*dict.fromkeys([*wanted, *(h for at in latents for h in at.hooks)])]
    for name in hooks:
        if name not in model.hook_dict:
            raise AblationError(
                f"{model.cfg.model_name} has no hook point {name!r}; "
                "its units cannot be ablated there"
            )
    seen: dict[str, list[Tensor]] = {name: [] for name in hooks}

    def keep_as(name: str) -> Callable[[Tensor], Tensor]:
        def keep(activation: Tensor) -> Tensor:
            seen[name].append(activation.detach().clone())
            return activation

        return keep

    logits = [
        edited_logits(model, part, {name: keep_as(name) for name in hooks}, n_read)
        for part in in_parts(tokens)
    ]
    silent = [name for name in hooks if not seen[name]]
    if silent:
        raise AblationError(
            f"hook point {silent[0]!r} of {model.cfg.model_name} never fires "
            f"({len(silent)} of {len(hooks)} are silent); its units cannot be ablated"
        )
    found = {name: torch.cat(parts) for name, parts in seen.items()}
    made = [at.recorded(found) for at in latents]
    kept = {name: found[name] for name in wanted}
    return kept | {name: one for each in made for name, one in each.items()}, torch.cat(logits)


@dataclass(frozen=True, eq=False)
class CleanPass:
    """What the untouched model does on the rows of some prompts of one length.

    Attributes:
        forced: the prompts and their rows.
        activations: {hook: ``[(prompt sequence), pos, …]``}.
        logits: the logits that are read, ``[(prompt sequence), read, vocabulary]``.
        hooks: the hook points among `activations`; the others are of dictionaries.
        latents: where latents of dictionaries lie.
    """

    forced: ForcedRows
    activations: Mapping[str, Tensor]
    logits: Float[Tensor, "row read vocabulary"]
    hooks: tuple[str, ...]
    latents: tuple[LatentSite, ...] = ()

    @classmethod
    def of(
        cls,
        model: Model,
        hooks: Iterable[str],
        forced: ForcedRows,
        n_read: int,
        latents: tuple[LatentSite, ...] = (),
    ) -> CleanPass:
        """Run the model.

        Args:
            model: the bridge.
            hooks: the hook points at which activations are kept.
            forced: the prompts and their rows.
            n_read: how many of the last positions are read.
            latents: dictionaries, of which activations of latents are kept.
        """
        device = next(model.original_model.parameters()).device
        rows = rearrange(forced.rows, "prompt sequence pos -> (prompt sequence) pos").to(device)
        hooks = tuple(hooks)
        return cls(forced, *record(model, hooks, rows, n_read, latents), hooks, latents)

    def reads(self, forced: ForcedRows, n_read: int) -> bool:
        """Whether these rows are read here, at so many of their last positions."""
        return (
            self.forced.prompts == forced.prompts
            and self.forced.length == forced.length
            and torch.equal(self.forced.rows, forced.rows)
            and self.logits.shape[1] == n_read
        )

    def on_prompts(self, hook: str) -> Tensor:
        """Activations ``[prompt, pos, …]`` on the prompts alone."""
        return self.activations[hook][:: self.forced.n_sequences, : self.forced.length]

    def after_prompts(self, hook: str) -> list[Tensor]:
        """Activations ``[step, …]`` on what is forced after each prompt, all its rows together."""
        length, n = self.forced.length, self.forced.n_sequences
        rows = self.activations[hook][:, length:].unflatten(0, (-1, n))
        real = self.forced.real[:, :, length:].to(rows.device)
        return [rows[j][real[j]] for j in range(len(rows))]

    @property
    def n_forced(self) -> int:
        """How many positions are forced after a prompt."""
        return self.forced.rows.shape[2] - self.forced.length


def bound_metric(task: Task, tokens: Tokens, passes: Sequence[CleanPass]) -> Metric:
    """The metric of a task, once the clean logits after its prompts are known.

    Args:
        task: the task.
        tokens: its prompts in tokens.
        passes: their clean passes.
    """
    after_prompts = {
        number: one.logits[place * one.forced.n_sequences, 0 if one.n_forced else -1]
        for one in passes
        for place, number in enumerate(one.forced.prompts)
    }
    clean = torch.stack([after_prompts[number] for number in range(len(task))])
    per_token = task.answer_tokens == "mean"
    return bind_metric(task.metric, tokens=tokens, clean=clean, per_token=per_token)


def clean_passes(
    model: Model,
    task: Task,
    tokens: Tokens,
    hooks: Iterable[str] = (),
    latents: tuple[LatentSite, ...] = (),
    *,
    known: Iterable[CleanPass] = (),
) -> list[CleanPass]:
    """The untouched model on the prompts of a task, and on what is forced after them.

    Args:
        model: the bridge.
        task: the task.
        tokens: its prompts in tokens.
        hooks, latents: see `CleanPass.of`.
        known: passes of the same model at these hook points; those of the same rows are taken.
    """
    read_continuations = reads_continuations(task.metric, tokens)
    hooks, passes = tuple(hooks), []
    for rows in forced_rows(tokens, read_continuations=read_continuations):
        n_read = rows.length if isinstance(task.metric, AllPositions) else rows.n_read
        had = next((one for one in known if one.reads(rows, n_read)), None)
        passes.append(CleanPass.of(model, hooks, rows, n_read, latents) if had is None else had)
    return passes
