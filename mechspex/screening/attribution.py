"""Attribution: effects of ablation predicted from gradients at soft masks, at every order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mechspex.core.masks import Stream, sample_masks
from mechspex.core.units import Term, by_order, subsets_of
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.pair_scores import PairScores

# How far probes move each unit, up or down: small against the unit itself, large against rounding.
_STEP = 0.02


def first_order(
    recorded: RecordedValues, parts: int, at: Sequence[float], seed: int, keep: float | None = None
) -> Float[np.ndarray, " unit"]:
    """The predicted effect of ablating each unit alone: attribution patching on the way.

    ablated(i) = −∫₀¹ g_i(m_i = s) ds ≈ −mean_{s ∈ `at`} g_i(m_i = s). The midpoint alone is exact
    where f is quadratic in m_i. To have it for all units from a few gradients, a random 1/`parts`
    of the units is put at s at a time, spread over the model. What two units of one part do
    together, c m_i m_j, is then predicted as s · c of either's effect; at s = 1 units do not
    disturb each other, and one gradient serves all, as in plain attribution patching (Nanda 2023).
    With `parts` = 0 there is this one alone.

    With `keep` it is the mean effect among random masks of the other units, E_m[−g_i(m)], from
    gradients at `parts` such masks: of a multilinear f the single terms of the Fourier basis at
    p = `keep`, for all units at once.
    """
    n_units = recorded.n_units
    recorded.stage = "first order"
    if keep is not None:
        around = sample_masks(n_units, parts, keep=keep, seed=(seed, Stream.AMONG_OTHERS)).astype(
            np.float32
        )
        return -recorded.value_and_mean_gradient(around)[1].mean(axis=0, dtype=np.float64)
    parts = min(parts, n_units)
    part = np.random.default_rng(seed).permutation(n_units) % max(parts, 1)
    soft, rows = [], []
    for share in at if parts else (1.0,):
        rows.append(len(soft) + (np.zeros_like(part) if share == 1 else part))
        whole = np.ones((1 if share == 1 else parts, n_units), dtype=np.float32)
        if share < 1:
            whole[part, np.arange(n_units)] = share
        soft.extend(whole)
    _, gradients = recorded.value_and_mean_gradient(np.stack(soft))
    return -gradients[np.stack(rows), np.arange(n_units)].mean(axis=0, dtype=np.float64)


def along_the_line(recorded: RecordedValues, steps: int) -> Float[np.ndarray, " unit"]:
    """The predicted effect of each unit, −∫₀¹ g_i(m = s · 1) ds, by the middles of `steps` pieces
    of the line."""
    recorded.stage = "integrated"
    middles = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    soft = np.repeat(middles[:, None], recorded.n_units, axis=1)
    return -recorded.value_and_mean_gradient(soft)[1].mean(axis=0, dtype=np.float64)


def extensions(recorded: RecordedValues, sets: list[Term]) -> Float[np.ndarray, "set unit"]:
    """The predicted effect of every set with one unit more, for all units at once.

    ablated(T ∪ {k}) ≈ Σ_{S⊆T} (−1)^{|T|−|S|+1} g_k(all but S): exact in T, of first order in k.
    T = ∅ is plain attribution patching; T = {i} is the i-th row of the Hessian, integrated along
    m_i. Units of the set itself get 0.

    Args:
        recorded: the value function, with gradients.
        sets: the sets, by column.
    """
    subsets = sorted({subset for term in sets for subset in subsets_of(term)}, key=by_order)
    soft = np.ones((len(subsets), recorded.n_units), dtype=np.float32)
    for row, subset in enumerate(subsets):
        soft[row, list(subset)] = 0
    _, gradients = recorded.value_and_mean_gradient(soft)
    place = {subset: row for row, subset in enumerate(subsets)}
    found = np.zeros((len(sets), recorded.n_units), dtype=np.float32)
    for row, term in enumerate(sets):
        for subset in subsets_of(term):
            found[row] += (-1.0) ** (len(term) - len(subset) + 1) * gradients[place[subset]]
        found[row, list(term)] = 0
    return found


def pair_scores(recorded: RecordedValues, max_rows: int, n_probes: int, seed: int) -> PairScores:
    """The predicted effect of all pairs: whole rows for the units that interact most.

    Which those are is found by probes: for random signs v, y = (g(1) − g(1 − εv)) / ε ≈ H v, and
    the mean of y_i² over probes estimates Σ_j H_ij², the strength of row i (Hutchinson 1990).
    """
    n_units = recorded.n_units
    signs = images = np.empty((0, n_units), dtype=np.float32)
    columns = np.arange(n_units)
    if n_units > max_rows:
        recorded.stage = "probes"
        rng = np.random.default_rng((seed, Stream.PROBES))
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), (n_probes, n_units))
        soft = np.concatenate([np.ones((1, n_units), dtype=np.float32), 1 - _STEP * signs])
        _, gradients = recorded.value_and_mean_gradient(soft)
        images = (gradients[0] - gradients[1:]) / np.float32(_STEP)
        columns = _strongest(images, max_rows)
    recorded.stage = "second order"
    rows = extensions(recorded, [(int(column),) for column in columns])
    return PairScores(columns, rows, signs, images)


def _strongest(images: Float[np.ndarray, "probe unit"], n_rows: int) -> Int[np.ndarray, " row"]:
    strength = (images.astype(np.float64) ** 2).mean(axis=0)
    return np.sort(np.argsort(-strength, kind="stable")[:n_rows])
