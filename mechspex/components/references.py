"""Reference activations: what an ablated unit's activation is replaced by."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mechspex.components.alignment import common_ends, counterparts, segments
from mechspex.components.clean_pass import CleanPass, record
from mechspex.components.mean_references import (
    Means,
    References,
    Source,
    called_alike,
    pieces_of,
    with_forced,
)
from mechspex.components.words import EMBEDDING, embedding_names
from mechspex.core.errors import AblationError, ShapeError
from mechspex.models.load_model import Model
from mechspex.tasks.tokens import Tokens

ABLATIONS = {
    "zero": "zeros",
    "mean": "the mean over the task's prompts, position by position; span by span where prompts "
    "differ in length",
    "position_mean": "the mean over the task's prompts and over their positions but the first",
    "leave_one_out": "the mean over the other prompts of the task, as for mean",
    "resample": "the activation on another prompt of the task, drawn once by seed",
    "corrupted": "the activation on the paired corrupted prompt",
}
# Those that are taken over prompts, and say nothing of one prompt alone.
_OF_OTHERS = ("mean", "leave_one_out", "resample")
_ALONE = "'zero', 'position_mean', or 'corrupted' with a corrupted prompt"
# A mean over fewer prompts than these keeps much of what it should take away.
_FEW = 3


def reference_activations(
    model: Model,
    passes: Sequence[CleanPass],
    ablation: str | Mapping[str, Tensor],
    tokens: Tokens,
    *,
    calibration: tuple[Sequence[CleanPass], Tokens] | None = None,
    seed: int = 0,
) -> list[References]:
    """{hook: reference ``[1 or row, 1 or pos, …]``} for the rows of each pass.

    Positions of prompts of different lengths are matched piece by piece, see `alignment.labels`.
    Where an answer of several tokens is forced after a prompt, the reference there is that of the
    other prompts' answers, all their positions together. Embeddings of words know of no position:
    each of their means is one over all prompts and positions, so a single prompt has one as well.

    Args:
        model: the model, for the corrupted prompts.
        passes: the clean passes of the task's prompts.
        ablation: a name of `ABLATIONS`, or your own {hook: activations}, each of the shape of the
            clean ones, where the row and position axes may be 1.
        tokens: the task.
        calibration: clean passes of other prompts, over which means and draws are taken instead,
            and their tokens.
        seed: the seed of ``resample``.

    Raises:
        AblationError: an unknown name, no corrupted prompts, or a single prompt where the
            reference would be its own activation.
        ShapeError: activations of a shape that does not fit.
    """
    if isinstance(ablation, Mapping):
        return [
            {name: _checked(name, ablation, clean) for name, clean in one.activations.items()}
            for one in passes
        ]
    if ablation not in ABLATIONS:
        raise AblationError(f"ablation {ablation!r} is unknown; choose {', '.join(ABLATIONS)}")
    if not any(one.activations for one in passes):
        # Nothing is replaced where words are only hidden.
        return [{} for _ in passes]
    if ablation == "zero":
        return [
            {name: torch.zeros_like(clean[:1, :1]) for name, clean in one.activations.items()}
            for one in passes
        ]
    if ablation == "corrupted":
        return [_corrupted(model, one, tokens) for one in passes]
    source_passes, source_tokens = calibration or (passes, tokens)
    n_source = len(source_tokens.prompts)
    words_alone = ablation == "mean" and all({*one.activations} <= {EMBEDDING} for one in passes)
    _check_source(ablation, n_source, calibration is not None, words_alone)
    source = Source(source_passes, source_tokens, calibration is None)
    if ablation == "resample":
        return _resampled(passes, tokens, source, seed)
    by_position = ablation == "position_mean"
    if ablation == "mean" and calibration is None and n_source < _FEW and not words_alone:
        warnings.warn(
            f"the mean over {n_source} prompts takes away {(n_source - 1) / n_source:.0%} of what "
            "tells a prompt from the others; give more prompts, calibration prompts "
            "(calibration=[…]), or choose 'leave_one_out'",
            stacklevel=6,
        )
    called, of_source = called_alike(tokens, source, everywhere=by_position)
    leave_out = ablation == "leave_one_out"
    means = Means(source, of_source, leave_out=leave_out)
    special = frozenset(getattr(model.tokenizer, "all_special_ids", ()))
    words = Means(source, embedding_names(source_tokens, special), leave_out=leave_out)
    return [
        {
            hook: words.reference(hook, one, embedding_names(tokens))
            if hook == EMBEDDING
            else means.reference(hook, one, called)
            for hook in one.activations
        }
        for one in passes
    ]


def _check_source(ablation: str, n_source: int, calibrated: bool, words_alone: bool) -> None:
    """Refuse what cannot be taken over so many prompts."""
    if ablation in _OF_OTHERS and n_source == 1 and not calibrated and not words_alone:
        raise AblationError(
            f"ablation {ablation!r} over a single prompt would replace every activation by itself; "
            f"give more prompts, calibration prompts (calibration=[…]), or choose {_ALONE}"
        )
    if ablation == "leave_one_out" and calibrated:
        raise AblationError(
            "'leave_one_out' is the mean over the task's other prompts; over calibration prompts "
            "choose 'mean'"
        )


def _resampled(
    passes: Sequence[CleanPass], tokens: Tokens, source: Source, seed: int
) -> list[References]:
    """The activations on another prompt, drawn once."""
    if source.own:
        other = _other_prompts(len(tokens.prompts), seed, passes)
    else:
        drawn = np.random.default_rng(seed).integers(len(source.places), size=len(tokens.prompts))
        other = dict(enumerate(drawn.tolist()))
    use_spans = tokens.spans is not None and source.tokens.spans is not None
    pieces = pieces_of(tokens, use_spans=use_spans)
    of_source = pieces_of(source.tokens, use_spans=use_spans)

    def reference(hook: str, one: CleanPass) -> Tensor:
        rows = []
        for number in one.forced.prompts:
            where, place = source.places[other[number]]
            at = counterparts(pieces[number], of_source[other[number]])
            rows.append(where.on_prompts(hook)[place][at])

        def after(number: int) -> Tensor:
            where, place = source.places[other[number]]
            forced = where.after_prompts(hook)[place]
            return forced if len(forced) else where.on_prompts(hook)[place, -1:]

        return with_forced(torch.stack(rows), one, after)

    return [{hook: reference(hook, one) for hook in one.activations} for one in passes]


def _other_prompts(n_prompts: int, seed: int, passes: Sequence[CleanPass]) -> dict[int, int]:
    """For every prompt another one: a random cycle through all of them.

    Through those of its own length, where every length is there more than once.
    """
    groups = [one.forced.prompts for one in passes]
    if min(map(len, groups)) == 1:
        groups = [tuple(range(n_prompts))]
    other: dict[int, int] = {}
    for group in groups:
        cycle = np.random.default_rng(seed).permutation(len(group))
        following = np.roll(cycle, 1)
        other |= {
            group[a]: group[b] for a, b in zip(cycle.tolist(), following.tolist(), strict=True)
        }
    return other


def _corrupted(model: Model, one: CleanPass, tokens: Tokens) -> References:
    """The activations on the corrupted prompts, with the same answers forced after them."""
    if tokens.corrupted is None:
        raise AblationError(
            "ablation 'corrupted' needs corrupted prompts; give the task a corrupted text for "
            "each prompt or choose 'mean', 'resample' or 'zero'"
        )
    forced = one.forced
    rows: dict[int, list[tuple[int, Tensor]]] = {}
    for place, number in enumerate(forced.prompts):
        corrupted = tokens.corrupted[number]
        for sequence in range(forced.n_sequences):
            after = forced.rows[place, sequence, forced.length :]
            row = place * forced.n_sequences + sequence
            rows.setdefault(len(corrupted), []).append((row, torch.cat([corrupted, after])))
    device = next(model.original_model.parameters()).device
    found: dict[str, list[Tensor | None]] = {
        h: [None] * forced.rows[..., 0].numel() for h in one.activations
    }
    for members in rows.values():
        stacked = torch.stack([row for _, row in members]).to(device)
        seen, _ = record(model, one.hooks, stacked, latents=one.latents)
        for hook, activations in seen.items():
            for (row, _), activation in zip(members, activations, strict=True):
                number = forced.prompts[row // forced.n_sequences]
                at = _places_in_corrupted(tokens, number)
                steps = [len(tokens.corrupted[number]) + t for t in range(one.n_forced)]
                found[hook][row] = activation[[*at, *steps]]
    return {
        hook: torch.stack([row for row in each if row is not None]) for hook, each in found.items()
    }


def _places_in_corrupted(tokens: Tokens, number: int) -> list[int]:
    """For each position of a prompt the one of its corrupted prompt that stands for it."""
    assert tokens.corrupted is not None
    clean, other = tokens.prompts[number].tolist(), tokens.corrupted[number].tolist()
    if tokens.spans is not None and tokens.corrupted_spans is not None:
        return counterparts(
            segments(len(clean), tokens.spans[number]),
            segments(len(other), tokens.corrupted_spans[number]),
        )
    if len(clean) == len(other):
        return list(range(len(clean)))
    return counterparts(*common_ends(clean, other))


def _checked(name: str, own: Mapping[str, Tensor], clean: Tensor) -> Tensor:
    if name not in own:
        raise AblationError(f"the reference has nothing for {name!r}; it has {sorted(own)}")
    shape, wanted = list(own[name].shape), list(clean.shape)
    fits = len(shape) == len(wanted) and shape[2:] == wanted[2:]
    if not fits or any(a not in (1, b) for a, b in zip(shape[:2], wanted[:2], strict=True)):
        raise ShapeError(
            f"the reference for {name!r} has shape {shape}, expected {wanted} "
            "(the first two may be 1)"
        )
    return own[name].to(clean)
