"""Where the values of prompts come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mechspex.core.identity import Identity, name_of
from mechspex.core.provenance import Provenance
from mechspex.models.weights import weights_hash
from mechspex.prompts.asked import Asked
from mechspex.prompts.scored_model import ScoredModel
from mechspex.prompts.text_units import label_of

# Tokens of a prompt that answers show, half of them at either end.
_TOKENS = 60


def provenance_of(
    asked: Asked, scored: ScoredModel | None, ends: tuple[float, float] | None
) -> Provenance:
    """Where the values come from, and what was read.

    Args:
        asked: what the user asks.
        scored: the model; None where the values are a function of the text.
        ends: the mean values with everything kept and with everything ablated.
    """
    units, metric = asked.units, asked.metric
    named = isinstance(metric, str)
    count = f"{len(units)} {units.by}{'s' * (len(units) != 1)}"
    ablation = asked.ablation
    read = [prompt.text([True] * len(units)) for prompt in asked.prompts]
    told = {"text": units.text}
    if asked.questions[0] is not None:
        told["question"] = _told(asked.questions)
    if scored is not None:
        told |= {"response": _told(scored.texts), "read": scored.read_as(0, most=_TOKENS)}
    found = Provenance(
        task=label_of(units.text).replace(",", ""),
        n_prompts=len(asked.prompts),
        prompts_digest=_digest(*read, *_tokens(scored)),
        metric=metric if named else name_of(metric),
        metric_digest=None if named else Identity.of(metric).digest,
        units=count,
        units_digest=_digest(units.text, str(units.to_list())),
        ablation=ablation,
        ablation_digest=None if asked.replacement is None else _digest(asked.replacement),
        others=told,
    )
    return found if scored is None else _with_model(found, scored, ends)


def _with_model(
    found: Provenance, scored: ScoredModel, ends: tuple[float, float] | None
) -> Provenance:
    hooks = "; ".join(str(Identity.of(hook)) for hook in scored.forward.users_hooks)
    others = dict(found.others) | ({"hooks": hooks} if hooks else {})
    clean, ablated = (None, None) if ends is None else ends
    return replace(
        found,
        clean=clean,
        ablated=ablated,
        model=Path(scored.model.cfg.model_name).name,
        weights_digest=weights_hash(scored.model)[:16],
        dtype=str(scored.model.cfg.dtype).removeprefix("torch."),
        others=others,
    )


def _tokens(scored: ScoredModel | None) -> list[str]:
    """Everything that is read and scored, in tokens."""
    if scored is None:
        return []
    rows = [row.tolist() for row in scored.whole]
    responses = [
        [list(response.tokens), list(response.distractor or ()), [str(p) for p in response.pieces]]
        for response in scored.responses
    ]
    return [json.dumps([rows, responses])]


def _told(texts: Sequence[str | None]) -> str:
    """One text as it is, several as JSON."""
    return str(texts[0]) if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "backslashreplace"))
        digest.update(b"|")
    return digest.hexdigest()[:16]
