"""How much of a function's variance is linear, within layers and across: from values alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.errors import BudgetError
from mechspex.core.statistics import Estimate, halfwidth

# Blocks of masks that are left out in turn for the intervals.
_BLOCKS = 20
# Masks at a time whose pairs with all others are held.
_ROWS = 256


@dataclass(frozen=True)
class Energies:
    """Shares of the variance, which add up to 1.

    Attributes:
        linear: the share of single units.
        within: the share of interactions whose units lie in one layer.
        across: the share of all other interactions.
    """

    linear: Estimate
    within: Estimate
    across: Estimate


def layer_energies(
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, " mask"],
    layers: Sequence[int],
    keep: float,
    max_order: int | None = None,
) -> Energies:
    """The shares of the variance of a function under random masks, without recovering it.

    With z the Fourier factors (m − p)/√(p(1 − p)) and r what least squares on them leaves of a mask
    that was left out: linear is the adjusted R²; within is the unbiased
    Σ_{a≠b} r_a r_b K(a, b) / (N(N − 1)) over the variance, with the kernel of all terms of order
    2 and more that lie in one layer, K(a, b) = Σ_layer Π(1 + z_a z_b) − 1 − Σ z_a z_b (products and
    sums over its units); across is the rest. No order is left out unless `max_order` says so: of
    many layers high orders are all noise, most of all at high densities. Intervals are 95% over
    masks: 20 blocks are left out in turn (jackknife).

    Args:
        masks: independent masks of the density.
        values: their values.
        layers: the layer of each unit.
        keep: the density p.
        max_order: the largest order of terms within a layer; larger ones then count as across.

    Raises:
        BudgetError: fewer than three masks a unit.
    """
    n_masks, n_units = masks.shape
    if n_masks < 3 * n_units:
        raise BudgetError(f"{n_masks} masks of {n_units} units: give at least {3 * n_units}")
    factors = (masks - keep) / np.sqrt(keep * (1 - keep))
    _, left = _linear(factors, values)
    blocks = np.arange(n_masks) * _BLOCKS // n_masks
    sums = _block_sums(factors, left, _columns(layers), blocks, max_order)
    counts = np.bincount(blocks, minlength=_BLOCKS)

    def shares(chosen: Bool[np.ndarray, " block"]) -> Float[np.ndarray, " share"]:
        rows = chosen[blocks]
        linear, _ = _linear(factors[rows], values[rows])
        number = counts[chosen].sum()
        within = sums[np.ix_(chosen, chosen)].sum() / (number * (number - 1))
        within /= values[rows].var(ddof=1)
        return np.array([linear, within, 1 - linear - within])

    return Energies(*_jackknife(shares))


def _linear(
    factors: Float[np.ndarray, "mask unit"], values: Float[np.ndarray, " mask"]
) -> tuple[float, Float[np.ndarray, " mask"]]:
    """The adjusted R² of least squares, and what it leaves of each mask that is left out."""
    n_masks, n_units = factors.shape
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n_masks), factors]))
    left = values - basis @ (basis.T @ values)
    unexplained = (left**2).sum() / (n_masks - n_units - 1)
    return float(1 - unexplained / values.var(ddof=1)), left / (1 - (basis**2).sum(axis=1))


def _columns(layers: Sequence[int]) -> list[np.ndarray]:
    return [np.flatnonzero(np.array(layers) == layer) for layer in dict.fromkeys(layers)]


def _block_sums(
    factors: Float[np.ndarray, "mask unit"],
    left: Float[np.ndarray, " mask"],
    groups: Sequence[np.ndarray],
    blocks: np.ndarray,
    max_order: int | None,
) -> Float[np.ndarray, "block block"]:
    """Σ r_a r_b K(a, b) over the pairs of masks of two blocks, a mask with itself left out."""
    n_masks = len(factors)
    of_block = (blocks[:, None] == np.arange(_BLOCKS)) * left[:, None]
    sums = np.zeros((_BLOCKS, _BLOCKS))
    for start in range(0, n_masks, _ROWS):
        rows = np.arange(start, min(start + _ROWS, n_masks))
        kernel = np.zeros((len(rows), n_masks))
        for columns in groups:
            kernel += _terms_within(factors[np.ix_(rows, columns)], factors[:, columns], max_order)
        kernel[np.arange(len(rows)), rows] = 0
        sums += of_block[rows].T @ kernel @ of_block
    return sums


def _terms_within(
    rows: Float[np.ndarray, "row unit"],
    every: Float[np.ndarray, "mask unit"],
    max_order: int | None,
) -> Float[np.ndarray, "row mask"]:
    """Σ Π z_a z_b over the sets of two units and more: elementary symmetric polynomials."""
    most = rows.shape[1] if max_order is None else min(max_order, rows.shape[1])
    sums = [np.ones((len(rows), len(every))), *np.zeros((most, len(rows), len(every)))]
    for one, other in zip(rows.T, every.T, strict=True):
        both = np.outer(one, other)
        for order in range(most, 0, -1):
            sums[order] = sums[order] + both * sums[order - 1]
    return np.sum(sums[2:], axis=0)


def _jackknife(
    shares: Callable[[Bool[np.ndarray, " block"]], Float[np.ndarray, " share"]],
) -> list[Estimate]:
    whole = shares(np.ones(_BLOCKS, dtype=bool))
    without = np.array([shares(np.arange(_BLOCKS) != block) for block in range(_BLOCKS)])
    spread = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    half = halfwidth(np.sqrt(spread * (_BLOCKS - 1) / _BLOCKS), _BLOCKS - 1)
    return [
        Estimate(value, value - reach, value + reach)
        for value, reach in zip(whole.tolist(), half.tolist(), strict=True)
    ]


def rescaled_additive(
    masks: Bool[np.ndarray, "mask unit"],
    values: Float[np.ndarray, " mask"],
    layers: Sequence[int],
    keep: float,
) -> tuple[float, float, float]:
    """The linear and the within-layer share of heads that only add up, if kept heads are rescaled;
    and how much of the variance such heads explain.

    Least squares fits c + Σ w_i m_i H/k to the values, with H units in the layer of i, k of them
    kept: additive but for the rescale. Its shares are exact; nothing of it is across layers. How
    much it explains is its adjusted R².

    Args:
        masks: masks of the density.
        values: their values.
        layers: the layer of each unit.
        keep: the density p.
    """
    groups = _columns(layers)
    scaled = np.zeros(masks.shape)
    for columns in groups:
        kept = masks[:, columns]
        scaled[:, columns] = kept * len(columns) / np.maximum(kept.sum(axis=1), 1)[:, None]
    design = np.column_stack([np.ones(len(masks)), scaled])
    weights = np.linalg.lstsq(design, values, rcond=None)[0][1:]
    fits, _ = _linear(scaled, values)
    parts = [_rescaled_energies(weights[columns], keep) for columns in groups]
    variance = sum(whole for whole, _ in parts)
    linear = sum(singles for _, singles in parts) / variance
    return float(linear), float(1 - linear), fits


def _rescaled_energies(weights: Float[np.ndarray, " unit"], keep: float) -> tuple[float, float]:
    """The variance of Σ w_i x_i, x_i = m_i H/k, in one layer, and that of its single terms.

    All units of a layer are alike, so its moments are sums over the number of others kept.
    """
    from scipy.stats import binom

    size = len(weights)

    def moment(fixed: int, power: int) -> float:
        """E[(H/k)^power] where `fixed` units are surely kept, times the chance of that."""
        if fixed > size:
            return 0.0
        others = np.arange(size - fixed + 1)
        chance = binom.pmf(others, size - fixed, keep)
        return float(keep**fixed * (chance * (size / (fixed + others)) ** power).sum())

    mean, spread = moment(1, 1), np.sqrt(keep * (1 - keep))
    own = mean * (1 - keep) / spread
    other = (moment(2, 1) - keep * mean) / spread
    squares, total = float((weights**2).sum()), float(weights.sum())
    variance = (moment(1, 2) - mean**2) * squares
    variance += (moment(2, 2) - mean**2) * (total**2 - squares)
    singles = own * weights + other * (total - weights)
    return variance, float((singles**2).sum())


def chance_within(layers: Sequence[int]) -> float:
    """The share of all pairs of units that lie in one layer."""
    sizes = np.array([len(columns) for columns in _columns(layers)])
    return float((sizes * (sizes - 1)).sum() / (len(layers) * (len(layers) - 1)))
