"""The forwards of a task through the bridge, made from the clean passes of its prompts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange

from mechspex.components.batched_forward import BatchedForward
from mechspex.components.clean_pass import CleanPass, clean_passes
from mechspex.components.context import check_context
from mechspex.components.edge_ablation import EdgeAblation
from mechspex.components.edge_proof import check_wiring
from mechspex.components.few_masks import SharedPasses
from mechspex.components.forwards import AblatedModel
from mechspex.components.masked_forward import Ablation, MaskedForward, check_sites
from mechspex.components.placed_units import tokens_at
from mechspex.components.references import reference_activations
from mechspex.components.words import PlacedWords, places_of_words
from mechspex.tasks.metrics import Metric
from mechspex.tasks.next_token import encode
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import Tokens


def passes_at_units(
    ablated: AblatedModel, task: Task, tokens: Tokens, shared: SharedPasses | None = None
) -> list[CleanPass]:
    """The untouched model at the hook points of the units.

    Args:
        ablated: the model.
        task: the prompts, in words.
        tokens: the prompts, in tokens.
        shared: the clean passes that others share; None where nobody does.
    """
    if shared is not None:
        return shared.on(ablated, task, tokens)
    return clean_passes(ablated.model, task, tokens, ablated.hooks_ablated, ablated.latents)


def forwards_through_bridge(
    ablated: AblatedModel,
    task: Task,
    tokens: Tokens,
    metric: Metric,
    passes: list[CleanPass],
) -> Iterator[BatchedForward]:
    """The forwards of the rows of each clean pass, through the bridge.

    Args:
        ablated: the model.
        task: the prompts, in words.
        tokens: the prompts, in tokens.
        metric: what is measured.
        passes: the clean passes of the prompts.
    """
    model = ablated.model
    for one in passes:
        check_sites(model, ablated.sites, one.activations)
    sites = [tuple(site.on(one.forced, tokens) for site in ablated.sites) for one in passes]
    every = reference_activations(
        model,
        passes,
        ablated.ablation,
        tokens,
        calibration=_calibration(ablated, task.prepend_bos),
        seed=ablated.seed,
    )
    places = places_of_words(ablated.units, task, tokens, model.tokenizer)
    for one, placed, references in zip(passes, sites, every, strict=True):
        prompts, length = one.forced.prompts, one.forced.length
        rows = rearrange(one.forced.rows, "prompt sequence pos -> (prompt sequence) pos")
        words = PlacedWords.of(ablated.units, places, one.forced, ablated.device)
        latents = tuple(at.on(one.forced, tokens) for at in ablated.latents)
        parts = Ablation(placed, references, rows.shape[1], words, ablated.rescale, latents)
        ablation: Ablation | EdgeAblation = parts
        if ablated.edges is not None:
            at = torch.from_numpy(tokens_at(ablated.edges.places, one.forced, tokens))
            ablation = EdgeAblation(
                ablated.edges, references, one.activations, rows.shape[1], at, parts
            )
        plain = MaskedForward(model, rows.to(ablated.device), ablation, one.logits.shape[1])
        if ablated.edges is not None and one is passes[0]:
            check_wiring(plain)
        yield BatchedForward.of(prompts, length, metric, plain, ablated.hooks)


def _calibration(
    ablated: AblatedModel, prepend_bos: bool | None
) -> tuple[list[CleanPass], Tokens] | None:
    """The clean passes of the calibration prompts, where there are any."""
    if ablated.calibration is None:
        return None
    model, texts = ablated.model, ablated.calibration
    # Nothing is read there but the texts.
    task = Task(texts, texts, metric="kl_divergence", name="calibration")
    ids = [encode(model.tokenizer, text, prepend_bos) for text in texts]
    tokens = Tokens(tuple(map(torch.tensor, ids)), None, tuple(((0,),) for _ in ids), None)
    check_context(model, task, tokens)
    return passes_at_units(ablated, task, tokens), tokens
