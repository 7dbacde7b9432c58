"""Latents of a dictionary as units: given ones, or those that a task's prompts make most active."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechspex.components.clean_pass import record
from mechspex.components.component_values import ComponentValues
from mechspex.components.latent_sites import hooks_of
from mechspex.core.checks import NAMES, NUMBERS, Only, Several, Whole, told
from mechspex.core.doors import door
from mechspex.core.errors import AblationError, Refused
from mechspex.core.units import UnitSet
from mechspex.models.dictionary import Dictionary
from mechspex.models.latent_units import (
    LATENT,
    LatentUnits,
    dictionary_of,
    units_of_dictionary,
)
from mechspex.models.load_dictionary import as_dictionary
from mechspex.models.load_model import Model, as_model
from mechspex.models.units import places_of
from mechspex.tasks.load_task import task_of
from mechspex.tasks.next_token import encode
from mechspex.tasks.task import Task, as_task

By = Literal["activation", "attribution"]


def _as_by(name: str, given: object) -> object:
    if not isinstance(given, str) or given not in get_args(By):
        raise Refused(f"{name} = {told(given)}: choose {' or '.join(map(repr, get_args(By)))}")
    return given


@door(
    model=as_model,
    dictionary=as_dictionary,
    chosen=NUMBERS,
    task=as_task,
    n_latents=Whole(1),
    by=_as_by,
    positions=NUMBERS,
    spans=NAMES,
)
def latents(
    model: Model | str | Path,
    dictionary: Dictionary | str | Path,
    chosen: Iterable[int] | None = None,
    *,
    task: Task | str | Path | None = None,
    n_latents: int = 64,
    by: By = "activation",
    error: bool = True,
    positions: int | Iterable[int] | None = None,
    spans: str | Iterable[str] | None = None,
) -> LatentUnits:
    """The latents of a sparse dictionary as units, and its error term: ``L15.latent1234``, …

    Of an activation y = Σ_i a_i d_i + b_dec + error each a_i d_i is a unit, and so is the error,
    ``L15.error``. Those of what an MLP writes are ``L15MLP.latent1234``. An ablated latent has the
    reference of its activation, all others are what the model makes of them under that mask; so
    latents that are no units stay live, and with everything kept the model is untouched.

    Args:
        model: a loaded model, or its name.
        dictionary: from `load_dictionary`, or its folder.
        chosen: the numbers of the latents; all if neither they nor a task are given.
        task: prompts by which latents are chosen instead.
        n_latents: how many those are at most; none that is active nowhere.
        by: ``activation``, the largest mean of a_i ‖d_i‖ over the prompts and their positions but
            the first; ``attribution``, the largest mean size of ∂ value / ∂ m_i of a prompt, with
            everything kept and zeros as references (attribution patching, Nanda 2023).
        error: whether the error term is a unit as well.
        positions, spans: see `heads`; there is then one unit a latent and position
            (``L15.latent1234@-1``).

    Raises:
        DictionaryError: one that does not fit the model.
        UnknownUnitError: a latent that it does not have.
        Refused: both numbers and a task, or positions and spans.
        AblationError: no latent is active on the prompts.
    """
    assert isinstance(model, Model)
    assert isinstance(dictionary, Dictionary)
    hooks_of(model, dictionary)
    if task is None:
        numbers = range(dictionary.n_latents) if chosen is None else _several(chosen)
    elif chosen is not None:
        raise Refused("give the numbers of latents, or a task by which they are chosen, not both")
    else:
        numbers = _strongest(model, dictionary, task_of(model, task), n_latents, by)
    places = places_of(positions, spans)
    return units_of_dictionary(dictionary, numbers, error=error, places=places)


@door(
    model=as_model,
    units=Only((LatentUnits,), "units from latents(model, dictionary)"),
    texts=Several(Only((str,), "texts"), "a list of texts"),
    n_words=Whole(1),
)
def active_words(
    model: Model | str | Path, units: LatentUnits, texts: Iterable[str], n_words: int = 5
) -> pd.DataFrame:
    """The tokens at which latents are most active, with what stands around them.

    One row a latent and rank: its name, the token, a_i there, the number of the text, and the text
    around, the token in ⟦ ⟧. No token stands twice, and the first of each text is left out, whose
    activations are unlike all others.

    Args:
        model: a loaded model, or its name.
        units: the latents; units of other kinds among them are passed over.
        texts: where to look.
        n_words: how many tokens a latent at most.
    """
    assert isinstance(model, Model)
    rows = []
    ids = [encode(model.tokenizer, text, None) for text in texts]
    for called, dictionary in units.dictionaries.items():
        mine = [u for u in units if u.kind == LATENT and dictionary_of(u) == called]
        numbers = list(dict.fromkeys(unit.number for unit in mine))
        found = [
            activations.index_select(1, torch.tensor(numbers))
            for activations in _activations(model, dictionary, ids)
        ]
        for column, number in enumerate(numbers):
            sizes = [one[:, column].clone() for one in found]
            rows += _words(model, f"{called}.latent{number}", sizes, ids, n_words)
    return pd.DataFrame(rows, columns=["unit", "token", "activation", "text", "around"])


def _several(numbers: int | Iterable[int]) -> list[int]:
    return [numbers] if isinstance(numbers, int) else list(numbers)


def _words(
    model: Model, name: str, sizes: Sequence[Tensor], ids: Sequence[Sequence[int]], n_words: int
) -> list[tuple[str, str, float, int, str]]:
    """The tokens at which one latent is most active, each once."""
    places = sorted(
        (-float(size), text, position)
        for text, each in enumerate(sizes)
        for position, size in enumerate(each.tolist())
        if position and size > 0
    )
    rows, seen = [], set()
    for size, text, position in places:
        token = ids[text][position]
        if token in seen or len(rows) == n_words:
            continue
        seen.add(token)
        before, here, after = (
            str(model.tokenizer.decode(part))
            for part in (ids[text][max(0, position - 5) : position], [token],
                         ids[text][position + 1 : position + 4])
        )  # fmt: skip
        rows.append((name, here, -size, text, f"{before}⟦{here}⟧{after}"))
    return rows


@torch.no_grad()
def _activations(
    model: Model, dictionary: Dictionary, ids: Sequence[Sequence[int]]
) -> list[Float[Tensor, "pos latent"]]:
    """The activations of all latents on each text."""
    reads, _ = hooks_of(model, dictionary)
    some = next(model.original_model.parameters())
    here = dictionary.to(some.device, torch.promote_types(some.dtype, torch.float32))
    found: list[Tensor] = [torch.empty(0)] * len(ids)
    for length in {len(one) for one in ids}:
        members = [number for number, one in enumerate(ids) if len(one) == length]
        tokens = torch.tensor([list(ids[number]) for number in members], device=some.device)
        read = record(model, [reads], tokens)[0][reads]
        read = read.view(len(members), length, -1).to(here.w_enc.dtype)
        for number, row in zip(members, read, strict=True):
            found[number] = here.activations(row).cpu()
    return found


def _strongest(
    model: Model, dictionary: Dictionary, task: Task, n_latents: int, by: By
) -> list[int]:
    """The latents that are most active on a task's prompts, or that its value turns on most."""
    ids = [encode(model.tokenizer, text, task.prepend_bos) for text in task.prompts]
    mean = torch.stack([
        one[1:].sum(0) for one in _activations(model, dictionary, ids)
    ]).sum(0) / max(1, sum(len(one) - 1 for one in ids))  # fmt: skip
    sizes = (mean * dictionary.sizes.cpu()).numpy()
    active = np.flatnonzero(sizes)
    if not len(active):
        raise AblationError(
            f"no latent at {dictionary.writes} is active on the prompts of {task.name}; is the "
            "dictionary of this model? Give its numbers otherwise"
        )
    scores = sizes[active]
    if by == "attribution":
        units: UnitSet = units_of_dictionary(dictionary, active.tolist(), error=False)
        values = ComponentValues(model, task, units, "zero")
        gradient = values.value_and_gradient(np.ones((1, len(units)), dtype=np.float32))[1]
        scores = np.abs(gradient[0]).mean(axis=0)
    order = np.argsort(-scores, kind="stable")[:n_latents]
    return sorted(active[order].tolist())
