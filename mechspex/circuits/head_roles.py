"""Roles of heads, proposed from where they look, with the evidence beside each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.components.clean_pass import record
from mechspex.core.checks import Only
from mechspex.core.doors import door
from mechspex.core.errors import Refused, TaskError
from mechspex.core.units import UnitSet
from mechspex.models.load_model import Model, as_model
from mechspex.tasks.task import Task
from mechspex.tasks.token_ids import Continuation
from mechspex.tasks.tokens import tokenize

Look = tuple[int, list[int]]
"""A position, and those it would look at."""
_Prompt = tuple[Tensor, list[list[Look]]]

# What patterns that are held at once may have in numbers.
_NUMBERS = 1 << 24

# A head that gives less of its attention to a place, or less than so many times what uniform
# attention gives, has no role there.
_LEAST, _TIMES = 0.25, 2
# (role, where a head of that role looks), in the order of `_looks`.
_PLACES = (
    ("previous_token", "from each token to the one before"),
    ("duplicate_token", "from a repeated token to where it came before"),
    ("induction", "from a repeated token to what followed where it came before"),
    ("name_mover", "from the last token to the answer"),
    ("s_inhibition", "from the last token to the distractor"),
)
_FOLLOWING, _ANSWER = 2, 3
_COLUMNS = ("to_previous", "to_duplicate", "to_following", "to_answer", "to_distractor")


@door(model=as_model, task=Only((Task,), "a Task, such as load_task('ioi', model)", TaskError))
def head_roles(
    model: Model,
    task: Task,
    heads: UnitSet,
    effects: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Where heads look on a task's prompts, and the role that this suggests.

    Of each head five means of its attention pattern A[q, k] over prompts: A[q, q − 1]; A[q, p]
    and A[q, p + 1] where token p is the last earlier occurrence of token q; and the attention of
    the last position to the answer's and to the distractor's occurrences in the prompt. The
    largest of the five names the role if it is at least 0.25 and twice what uniform attention
    gives: ``previous_token``, ``duplicate_token``, ``induction``, ``s_inhibition`` (to the
    distractor: in IOI the repeated name), ``name_mover`` (to the answer), or
    ``negative_name_mover`` where ablating the head raises the value. Where the answer is what
    followed the last token before, a head that stands out in both is ``induction``. The roles are
    those of Wang et al. 2022 (arXiv:2211.00593); a pattern only proposes one.

    Args:
        model: a bridge whose attention patterns can be read.
        task: with prompts in which tokens repeat, or which hold their answers.
        heads: which ones; a position of theirs is not looked at.
        effects: {name: exact effect of ablating it}, which tells movers from negative ones.

    Returns:
        One row a head: ``unit``, the five means (NaN where no prompt has such a place), ``role``
        (empty if none stands out) and ``evidence`` in words, beside what uniform attention gives.

    Raises:
        Refused: units that are not heads.
        AblationError: the model does not show its patterns.
    """
    if not len(heads) or any(unit.kind != "head" for unit in heads):
        raise Refused(f"roles are those of heads, not of {heads.description or 'no units'}")
    layers = sorted({unit.layer for unit in heads})
    hooks = {layer: f"blocks.{layer}.attn.hook_pattern" for layer in layers}
    device = next(model.original_model.parameters()).device
    seen, chance = {layer: [] for layer in layers}, []
    prompts = list(_looks(model, task))
    answer_follows = all(looks[_ANSWER][0] in looks[_FOLLOWING] for _, looks in prompts)
    for alike in _of_one_length(prompts, len(layers) * model.cfg.n_heads):
        tokens = torch.stack([tokens for tokens, _ in alike]).to(device)
        with torch.no_grad():
            patterns, _ = record(model, hooks.values(), tokens)
        for row, (_, looks) in enumerate(alike):
            for layer, hook in hooks.items():
                pattern = patterns[hook][row].float().cpu().numpy()
                seen[layer].append([_attention(pattern, look) for look in looks])
            chance.append([_uniform(look) for look in looks])
    by_chance = _mean_over_prompts(np.array(chance))
    rows = []
    for unit in heads:
        share = _mean_over_prompts(np.array(seen[unit.layer])[:, :, unit.number])
        effect = (effects or {}).get(unit.name, 0.0)
        rows.append(_row(unit.name, share, by_chance, effect, answer_follows))
    return pd.DataFrame(rows)


def _of_one_length(prompts: list[_Prompt], n_patterns: int) -> Iterator[list[_Prompt]]:
    """Prompts of one length together, as many at a time as their patterns leave room for."""
    for length in dict.fromkeys(len(tokens) for tokens, _ in prompts):
        alike = [prompt for prompt in prompts if len(prompt[0]) == length]
        at_once = max(1, _NUMBERS // (n_patterns * length**2))
        for first in range(0, len(alike), at_once):
            yield alike[first : first + at_once]


def _looks(model: Model, task: Task) -> Iterator[_Prompt]:
    """The tokens of each prompt, and the places of `_PLACES` in it."""
    tokens = tokenize(task, model.tokenizer)
    wrong = [()] * len(task) if tokens.distractors is None else tokens.distractors
    for prompt, answer, distractor in zip(tokens.prompts, tokens.answers, wrong, strict=True):
        ids, last = prompt.tolist(), len(prompt) - 1
        earlier = {q: [p for p in range(q) if ids[p] == ids[q]] for q in range(len(ids))}
        repeated = [(q, found[-1]) for q, found in earlier.items() if found]
        yield (
            prompt,
            [
                # The first token takes attention that has nowhere to go, so 1 → 0 says nothing.
                [(q, [q - 1]) for q in range(2, len(ids))],
                [(q, [p]) for q, p in repeated],
                [(q, [p + 1]) for q, p in repeated if p + 1 < q],
                *([(last, _of(ids, wanted))] for wanted in (answer, distractor)),
            ],
        )


def _of(ids: list[int], wanted: Sequence[Continuation]) -> list[int]:
    """The positions of the first token of any of the wanted continuations."""
    tokens = {continuation[0] for continuation in wanted}
    return [position for position, token in enumerate(ids) if token in tokens]


def _attention(
    pattern: Float[np.ndarray, "head query key"], look: list[Look]
) -> Float[np.ndarray, " head"]:
    """The attention of each head from a position to some others, mean over positions."""
    shares = [pattern[:, query, keys].sum(axis=1) for query, keys in look if keys]
    return np.mean(shares, axis=0) if shares else np.full(len(pattern), np.nan)


def _uniform(look: list[Look]) -> float:
    shares = [len(keys) / (query + 1) for query, keys in look if keys]
    return float(np.mean(shares)) if shares else np.nan


def _mean_over_prompts(shares: Float[np.ndarray, "prompt place"]) -> Float[np.ndarray, " place"]:
    """The mean over prompts that have such a place; NaN where none has."""
    there = np.isfinite(shares)
    number = there.sum(axis=0)
    total = np.where(there, shares, 0).sum(axis=0)
    return np.where(number, total / np.maximum(number, 1), np.nan)


def _row(
    name: str,
    share: Float[np.ndarray, " place"],
    chance: Float[np.ndarray, " place"],
    effect: float,
    answer_follows: bool,
) -> dict[str, object]:
    place = int(np.nanargmax(share)) if np.isfinite(share).any() else 0
    stands_out = share >= np.maximum(_LEAST, _TIMES * chance)
    if place == _ANSWER and answer_follows and stands_out[_FOLLOWING]:
        place = _FOLLOWING
    role, words = _PLACES[place]
    if role == "name_mover" and effect > 0:
        role = "negative_name_mover"
    if not stands_out[place]:
        role, evidence = "", ""
    else:
        evidence = f"looks {words}: {share[place]:.2f}, uniform attention {chance[place]:.2f}"
        if effect and role.endswith("name_mover"):
            evidence += f"; ablating it {'raises' if effect > 0 else 'lowers'} the value"
    means = {column: float(value) for column, value in zip(_COLUMNS, share, strict=True)}
    return {"unit": name, **means, "role": role, "evidence": evidence}
