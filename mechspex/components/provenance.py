"""Where the values of ablated components come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mechspex.components.proved import Proved
from mechspex.components.words import is_word
from mechspex.core.identity import Identity, name_of
from mechspex.core.provenance import PIECE_BY_PIECE, Provenance, digest_of_parts
from mechspex.core.units import Unit
from mechspex.models.load_model import Model
from mechspex.models.weights import weights_hash
from mechspex.tasks.task import Task
from mechspex.tasks.token_ids import Continuation
from mechspex.tasks.tokens import Tokens, first_tokens


def provenance_of(proved: Proved) -> Provenance:
    """Where the values that are measured come from."""
    ablated, tokens = proved.ablated, proved.tokens
    ablation, taken_from = ablated.ablation, None
    if isinstance(ablation, Mapping):
        taken_from = [ablation[hook] for hook in sorted(ablation)]
        ablation = "references"
    elif ablation == "corrupted":
        taken_from = tokens.corrupted
    elif ablated.calibration is not None:
        taken_from = ablated.calibration
    elif ablation in ("mean", "resample") and len({len(ids) for ids in tokens.prompts}) > 1:
        # Version 0.1 took those of one length together.
        taken_from = [PIECE_BY_PIECE]
    read: list[str] = []
    words = [unit for unit in ablated.units if is_word(unit)]
    of_spans = ablated.units.named_spans or any(unit.span is None for unit in words)
    if tokens.spans is not None and (ablation != "zero" or of_spans):
        read.append(str([dict(spans) for spans in tokens.spans]))
    hooks = "; ".join(str(Identity.of(hook)) for hook in ablated.users_hooks)
    others = {"hooks": hooks, "backward": str(proved.rules) if proved.rules else ""}
    return replace(
        provenance_of_prompts(ablated.model, proved.task, tokens, *read),
        clean=proved.clean,
        ablated=proved.empty,
        n_blocks=proved.n_blocks,
        precision=proved.precision,
        units=ablated.units.description,
        units_digest=digest_of(
            " ".join(ablated.units.names),
            *_where(words),
            *(at.dictionary.digest for at in ablated.latents),
        ),
        ablation=ablation,
        ablation_digest=None if taken_from is None else digest_of(*taken_from),
        seed=ablated.seed if ablation == "resample" else None,
        rescaled=ablated.rescale,
        others={key: text for key, text in others.items() if text},
    )


def provenance_of_prompts(model: Model, task: Task, tokens: Tokens, *read: str) -> Provenance:
    """The fields that a model, the prompts of a task and its metric settle.

    Args:
        model: the bridge.
        task: the task.
        tokens: its prompts, in tokens.
        *read: what else values depend on.
    """
    metric = task.metric
    continued = [*_continuations(tokens.answers), *_continuations(tokens.distractors)]
    if task.answer_tokens != "all":
        continued.append(task.answer_tokens)
    return Provenance(
        model=Path(model.cfg.model_name).name,
        weights_digest=weights_hash(model)[:16],
        dtype=str(model.cfg.dtype).removeprefix("torch."),
        task=task.name,
        n_prompts=len(task),
        prompts_digest=digest_of(*tokens.prompts, *continued, *read),
        metric=metric if isinstance(metric, str) else name_of(metric),
        metric_digest=None if isinstance(metric, str) else Identity.of(metric).digest,
    )


def _where(words: Sequence[Unit]) -> list[str]:
    """Where words lie, which their names do not say; nothing of heads and the like."""
    return [str([(unit.kind, unit.label, unit.span) for unit in words])] if words else []


def _continuations(
    continuations: Sequence[Sequence[Continuation]] | None,
) -> list[str | Tensor]:
    """Answers or distractors, as a digest takes them."""
    if continuations is None:
        return []
    if all(len(ids) == 1 for several in continuations for ids in several):
        return [first_tokens(continuations)]
    return [str([list(map(list, several)) for several in continuations])]


def digest_of(*parts: str | Tensor) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of some texts and tensors.

    Args:
        *parts: the texts and tensors.
    """
    return digest_of_parts(part if isinstance(part, str) else _bytes(part) for part in parts)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
