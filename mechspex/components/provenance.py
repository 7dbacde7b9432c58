"""Where the values of ablated components come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mechspex.components.proof import Proved
from mechspex.core.provenance import Provenance
from mechspex.core.value_function import name_of
from mechspex.models.weights import weights_hash


def provenance_of(proved: Proved) -> Provenance:
    """Where the values that are measured come from."""
    ablated, tokens, metric = proved.ablated, proved.tokens, proved.task.metric
    ablation, taken_from = ablated.ablation, None
    if isinstance(ablation, Mapping):
        taken_from = [ablation[hook] for hook in sorted(ablation)]
        ablation = "references"
    elif ablation == "corrupted":
        taken_from = tokens.corrupted
    read = [tokens.answers, *([] if tokens.distractors is None else [tokens.distractors])]
    return Provenance(
        clean=proved.clean,
        ablated=proved.empty,
        model=Path(ablated.model.cfg.model_name).name,
        n_blocks=proved.n_blocks,
        weights_digest=weights_hash(ablated.model)[:16],
        dtype=str(ablated.model.cfg.dtype).removeprefix("torch."),
        precision=proved.precision,
        task=proved.task.name,
        n_prompts=len(proved.task),
        prompts_digest=_digest(*tokens.prompts, *read),
        metric=metric if isinstance(metric, str) else name_of(metric),
        units=ablated.units.description,
        units_digest=_digest(" ".join(ablated.units.names)),
        ablation=ablation,
        ablation_digest=None if taken_from is None else _digest(*taken_from),
        seed=ablated.seed if ablation == "resample" else None,
        rescaled=ablated.rescale,
    )


def _digest(*parts: str | Tensor) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else _bytes(part))
        digest.update(b"|")
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
