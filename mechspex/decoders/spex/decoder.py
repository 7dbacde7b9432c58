"""SPEX decoder: terms read off aliased bins as syndromes of a BCH code, and peeled off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from mechspex.core.errors import Refused
from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.spex.design import AliasedGroup, SpexDesign
from mechspex.decoders.spex.walsh_hadamard import walsh_hadamard
from mechspex.set_functions.bases import features
from mechspex.set_functions.set_function import SetFunction

# Searching the bins and refitting on all masks alternate this often at most.
_ALTERNATIONS = 3
_MOST_ROUNDS = 100
# Elements of one block: keeps memory in tens of megabytes.
_BLOCK = 1 << 22
# An energy Σ U² is rounding below this share of the energy of all bins; a squared residual is below
# this share of Σ value².
_ROUNDING_OF_ENERGY = 1e-20
# When coefficients are fitted, a bin is weighted by one over its remaining energy, floored at this
# share of an average bin's energy: so no clean bin outweighs all others by more than its inverse.
_CLEANEST = 1e-9
# Recovery has failed if bins that stand out from the noise hold this share of the energy, or if the
# terms leave this share of the variance unexplained.
_STANDS_OUT = 0.05
_LEFT_OVER = 0.5


@dataclass(frozen=True, repr=False)
class Spex(Decoder):
    """Peeling of the bins U_c[j, d] = Σ_{S: M_cᵀ1_S = j} F(S) (−1)^{⟨1_S, d⟩} of an aliased design.

    The signs of a bin along its delays are the parities of its strongest term, up to errors that a
    BCH code corrects (SPEX, Kang et al. 2025). A decoded set S is accepted if M_cᵀ1_S = j and the
    energy of its bins in all groups falls by more than chance explains,

        Σ_c D·O log(E_c / E_c′) > 2 log C(n, |S|) + O log(G·D),

    with D delays, G groups and O independent outputs. A term need not be alone in its bin: peeling
    the strongest of several bares the next. Coefficients are fitted on the bins, where clean bins
    count more. Then they are fitted on all masks, and terms that do not lower the EBIC are dropped.

    Attributes:
        n_words: how many words are tried a bin whose signs as they are give no term. Each word
            flips some of the least reliable signs (Chase 1972); words come in the order of the
            summed ranks of the flipped signs (Duffy et al. 2022). 1 is hard decoding.
    """

    name: ClassVar[str] = "spex"
    needs_design: ClassVar[bool] = True
    n_words: int = 512

    def minimum_masks(self, n_units: int) -> int:
        return SpexDesign.minimum_masks(n_units, max_order=1)

    def fit(self, samples: Samples) -> SetFunction:
        if not samples.groups:
            raise Refused(
                f"spex cannot decode these {samples.n_masks} masks of {samples.n_units} units: "
                "they hold no complete group of a SPEX design; measure the masks of "
                f"SpexDesign({samples.n_units}, n_masks).masks and give the design to decode"
            )
        bins = _Bins(samples.groups, samples.values)
        order = samples.order_up_to(bins.code.n_errors)
        support = np.full((1, bins.code.n_errors), samples.n_units)
        fit = _Fit(samples, support)
        for _ in range(_ALTERNATIONS):
            before = fit.support
            support = self._peel(bins, before, order, fit.effective_outputs)
            fit = _Fit(samples, support)
            # What was dropped would be found again.
            if len(fit.support) == len(support) or np.array_equal(fit.support, before):
                break
        bins.fit(fit.support)
        notes = _notes(bins, fit, samples)
        return SetFunction.from_mapping(
            samples.n_units,
            dict(zip(fit.terms, fit.coefficients, strict=True)),
            basis="fourier",
            notes=notes,
        )

    def _peel(
        self, bins: _Bins, support: Int[np.ndarray, "term error"], order: int, n_outputs: float
    ) -> Int[np.ndarray, "grown error"]:
        """Add to the support until no bin yields another term; hard decoding as far as it goes."""
        bins.fit(support)
        for _ in range(_MOST_ROUNDS):
            sets = bins.search(order, 1, support, n_outputs)
            if self.n_words > 1 and not len(sets):
                sets = bins.search(order, self.n_words, support, n_outputs)
            if not len(sets):
                break
            support = np.concatenate([support, sets])
            bins.fit(support)
        return support


class _Bins:
    """The transformed groups, and what remains of them once the terms of a support are peeled.

    Sets are rows of unit numbers, ascending, filled up with `n_units`, as the code gives them.
    """

    def __init__(
        self, groups: tuple[AliasedGroup, ...], values: Float[np.ndarray, "mask output"]
    ) -> None:
        self.code = groups[0].code
        scaled = (values - values.mean(axis=0)) / values.std()
        self._measured = np.stack([walsh_hadamard(scaled[group.rows.T]) for group in groups])
        self.rest: Float[np.ndarray, "group bin delay output"] = self._measured
        # Not 0 either where only the masks outside the groups differ in value.
        self.energy = max(float((self._measured**2).sum()), _ROUNDING_OF_ENERGY)
        n_bits = groups[0].matrix.shape[1]
        # One more row of zeros for the filler.
        labels = np.stack([group.matrix @ (1 << np.arange(n_bits)) for group in groups], axis=1)
        self._labels = np.vstack([labels, np.zeros_like(labels[:1])])
        offsets = np.stack([group.offset for group in groups], axis=1)
        self._offsets = np.vstack([offsets, np.zeros_like(offsets[:1])])
        self._parities = np.vstack([self.code.parities, np.zeros((1, self.code.n_parities), bool)])

    def addresses(self, sets: Int[np.ndarray, "term error"]) -> Int[np.ndarray, "term group"]:
        """The bin of each set in each group."""
        return np.bitwise_xor.reduce(self._labels[sets], axis=1)

    def signs(self, sets: Int[np.ndarray, "term error"]) -> Float[np.ndarray, "term group delay"]:
        """(−1)^{⟨1_S, d⟩}."""
        parities = np.bitwise_xor.reduce(self._parities[sets], axis=1)
        bits = np.pad(parities, ((0, 0), (1, 0)))
        offsets = np.bitwise_xor.reduce(self._offsets[sets], axis=1)
        return 1.0 - 2.0 * (bits[:, None, :] ^ offsets[:, :, None])

    def fit(self, support: Int[np.ndarray, "term error"]) -> None:
        """Peel a support: least squares on all bins, weighted by one over their remaining energy.

        So a term that is alone in one of its bins is read there, whatever the other bins hold.
        """
        addresses, signs = self.addresses(support), self.signs(support)
        groups = range(len(self._measured))
        for _ in range(2):
            energies = (self.rest**2).sum(axis=(2, 3))
            weights = 1 / (energies + _CLEANEST * self.energy / energies.size)
            gram = np.zeros((len(support), len(support)))
            slopes = np.zeros((len(support), self._measured.shape[3]))
            for c in groups:
                weight = weights[c, addresses[:, c], None]
                shared = addresses[:, c, None] == addresses[None, :, c]
                gram += np.where(shared, weight * (signs[:, c] @ signs[:, c].T), 0.0)
                cells = self._measured[c, addresses[:, c]]
                slopes += weight * np.einsum("kd,kdo->ko", signs[:, c], cells)
            scale = 1 / np.sqrt(np.diag(gram))
            normal = scale[:, None] * gram * scale
            coefficients = (
                scale[:, None] * np.linalg.lstsq(normal, scale[:, None] * slopes, rcond=1e-10)[0]
            )
            self.rest = self._measured.copy()
            for c in groups:
                peeled = signs[:, c, :, None] * coefficients[:, None, :]
                np.subtract.at(self.rest[c], addresses[:, c], peeled)

    def search(
        self,
        order: int,
        n_words: int,
        support: Int[np.ndarray, "term error"],
        n_outputs: float,
    ) -> Int[np.ndarray, "new error"]:
        """New sets that explain bins, at most one a bin, the most significant first."""
        candidates = self._decode(n_words)
        known = set(map(bytes, np.ascontiguousarray(support)))
        sizes = (candidates < self.code.n_units).sum(axis=1)
        new = [s <= order and bytes(c) not in known for s, c in zip(sizes, candidates, strict=True)]
        candidates = candidates[new]
        if not len(candidates):
            return candidates
        addresses = self.addresses(candidates)
        gains = self._gains(candidates, addresses, n_outputs)
        taken: set[tuple[int, int]] = set()
        chosen = []
        for k in np.argsort(-gains, kind="stable").tolist():
            if gains[k] <= 0:
                break
            places = set(enumerate(addresses[k].tolist()))
            if not places & taken:
                chosen.append(k)
                taken |= places
        return candidates[chosen]

    def _decode(self, n_words: int) -> Int[np.ndarray, "term error"]:
        """Every set that the signs of some bin decode to and that belongs to that bin."""
        n_groups, n_bins, n_delays, n_outputs = self.rest.shape
        cells = self.rest.reshape(n_groups * n_bins, n_delays, n_outputs)
        filled = np.flatnonzero((cells**2).sum(axis=(1, 2)) > _ROUNDING_OF_ENERGY * self.energy)
        patterns = _patterns(n_delays, n_words)
        decodes = [np.empty((0, self.code.n_errors), dtype=int)]
        block = max(1, _BLOCK // patterns.size)
        for start in range(0, len(filled), block):
            places = filled[start : start + block]
            leading = _leading(cells[places])
            ranks = np.argsort(np.argsort(np.abs(leading), axis=1), axis=1)
            bits = (leading < 0)[:, None, :] ^ patterns[:, ranks].swapaxes(0, 1)
            relative = bits[:, :, 1:] ^ bits[:, :, :1]
            sets, decoded = self.code.decode(relative.reshape(-1, n_delays - 1))
            calls = np.flatnonzero(decoded)
            groups, addresses = np.divmod(places[calls // len(patterns)], n_bins)
            belongs = self.addresses(sets[calls])[np.arange(len(calls)), groups] == addresses
            decodes.append(sets[calls[belongs]])
        return np.unique(np.concatenate(decodes), axis=0)

    def _gains(
        self,
        sets: Int[np.ndarray, "term error"],
        addresses: Int[np.ndarray, "term group"],
        n_outputs: float,
    ) -> Float[np.ndarray, " term"]:
        """How far accepting each set lowers the criterion."""
        n_groups, _, n_delays, _ = self.rest.shape
        gains = np.empty(len(sets))
        block = max(1, _BLOCK // self.rest[:, 0].size)
        floor = _ROUNDING_OF_ENERGY * self.energy
        for start in range(0, len(sets), block):
            part = slice(start, start + block)
            cells = self.rest[np.arange(n_groups), addresses[part]]
            slopes = np.einsum("kcd,kcdo->kco", self.signs(sets[part]), cells) / n_delays
            before = np.einsum("kcdo,kcdo->kc", cells, cells)
            alone = before - n_delays * (slopes**2).sum(axis=2)
            weights = 1 / np.maximum(alone, floor)
            weights /= weights.sum(axis=1, keepdims=True)
            joint = np.einsum("kc,kco->ko", weights, slopes)
            after = alone + n_delays * ((slopes - joint[:, None, :]) ** 2).sum(axis=2)
            drop = np.log(np.maximum(before, floor) / np.maximum(after, floor)).sum(axis=1)
            gains[part] = n_delays * n_outputs * drop
        sizes = (sets < self.code.n_units).sum(axis=1)
        return gains - _prices(sizes, self.code.n_units, n_groups * n_delays, n_outputs)


class _Fit:
    """Least squares on all masks over the sets of a support that pay; the empty set comes first.

    `support`, `terms` and `coefficients` are its result, `left_over` the share of the variance that
    they do not explain, `effective_outputs` the number of independent outputs in that.
    """

    def __init__(self, samples: Samples, support: Int[np.ndarray, "term error"]) -> None:
        self.support = support
        mean = samples.values.mean(axis=0)
        values = samples.values - mean
        total = float((values**2).sum())
        while True:
            sets = self.support.tolist()
            self.terms: list[Term] = [tuple(i for i in s if i < samples.n_units) for s in sets]
            gram = np.zeros((len(sets), len(sets)))
            slopes = np.zeros((len(sets), values.shape[1]))
            blocks = self._blocks(samples)
            for rows in blocks:
                design = self._design(samples.masks[rows])
                gram += design.T @ design
                slopes += design.T @ values[rows]
            inverse = np.linalg.pinv(gram, rcond=1e-10, hermitian=True)
            self.coefficients = inverse @ slopes
            residual = np.concatenate(
                [
                    values[rows] - self._design(samples.masks[rows]) @ self.coefficients
                    for rows in blocks
                ]
            )
            squares = max(float((residual**2).sum()), _ROUNDING_OF_ENERGY * total)
            self.effective_outputs = _effective(residual)
            increase = (self.coefficients**2).sum(axis=1) / np.diag(inverse)
            sizes = np.array([len(term) for term in self.terms])
            losses = samples.n_masks * self.effective_outputs * np.log1p(increase / squares)
            losses -= _prices(sizes, samples.n_units, samples.n_masks, self.effective_outputs)
            pays = (losses > 0) | (sizes == 0)
            self.left_over = squares / total
            if pays.all():
                self.coefficients[0] += mean
                return
            self.support = self.support[pays]

    def _design(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask term"]:
        return features(masks, self.terms, basis="fourier", keep=0.5)

    def _blocks(self, samples: Samples) -> list[slice]:
        rows = max(1, _BLOCK // len(self.terms))
        return [slice(start, start + rows) for start in range(0, samples.n_masks, rows)]


def _prices(
    sizes: Int[np.ndarray, " term"], n_units: int, n_data: int, n_outputs: float
) -> Float[np.ndarray, " term"]:
    """What a set must lower N·O log RSS by: EBIC, the coefficients and the choice of the set."""
    by_size = [2 * math.log(math.comb(n_units, size)) for size in range(max(sizes) + 1)]
    return np.array(by_size)[sizes] + n_outputs * math.log(n_data)


def _patterns(n_signs: int, n_words: int) -> Bool[np.ndarray, "word sign"]:
    """The flips to try, signs ordered from the least reliable: the smallest sums of ranks first."""
    flips: list[tuple[int, ...]] = []
    total = 0
    while len(flips) < n_words and total <= n_signs * (n_signs + 1) // 2:
        flips += _distinct_parts(total, n_signs)
        total += 1
    patterns = np.zeros((min(len(flips), n_words), n_signs), dtype=bool)
    for pattern, ranks in zip(patterns, flips, strict=False):
        pattern[[rank - 1 for rank in ranks]] = True
    return patterns


def _distinct_parts(total: int, largest: int) -> list[tuple[int, ...]]:
    """All ways to write a number as a sum of different numbers up to `largest`."""
    if total == 0:
        return [()]
    return [
        (*rest, part)
        for part in range(1, min(largest, total) + 1)
        for rest in _distinct_parts(total - part, part - 1)
    ]


def _leading(cells: Float[np.ndarray, "bin delay output"]) -> Float[np.ndarray, "bin delay"]:
    """The leading left singular vector of each block, times its singular value."""
    if cells.shape[2] == 1:
        return cells[:, :, 0]
    _, directions = np.linalg.eigh(np.einsum("bdo,bdp->bop", cells, cells))
    return np.einsum("bdo,bo->bd", cells, directions[:, :, -1])


def _effective(residual: Float[np.ndarray, "mask output"]) -> float:
    """How many independent outputs the residual is worth, (tr Σ)² / tr Σ²: 1 if all are alike."""
    covariance = residual.T @ residual
    squares = float((covariance**2).sum())
    return float(np.trace(covariance)) ** 2 / squares if squares > 0 else 1.0


def _notes(bins: _Bins, fit: _Fit, samples: Samples) -> tuple[str, ...]:
    """How many terms there are, and whether the energy that remains in the bins hides more."""
    n_groups, n_bins, n_delays, _ = bins.rest.shape
    n_terms = len(fit.terms) - 1
    notes = [
        f"spex: {n_terms} terms from {n_groups} groups × {n_delays} delays × {n_bins} bins, which "
        f"leave {fit.left_over:.1%} of the variance unexplained"
    ]
    energies = (bins.rest**2).sum(axis=(2, 3)).ravel()
    # Noise fills all bins alike, up to the scatter of a mean of D·O squares.
    scatter = math.sqrt(2 / (n_delays * fit.effective_outputs))
    noise = float(np.quantile(energies, 0.1)) / max(1 - 1.28 * scatter, 0.5)
    standing_out = energies[energies > noise * (1 + 3 * scatter)] - noise
    share = float(standing_out.sum()) / bins.energy
    if share > _STANDS_OUT or fit.left_over > _LEFT_OVER:
        cause = (
            "in bins that differ more than noise does, so they hold several terms"
            if share > _STANDS_OUT
            else "spread evenly, as noise is, or many more terms than there are bins"
        )
        n_bits = n_bins.bit_length() + 1
        larger = (n_groups * n_delays) << n_bits
        advice = f"; a design of {larger:,} masks (b = {n_bits}) would separate four times as many"
        notes.append(
            f"spex: recovery failed: {fit.left_over:.0%} of the variance is left, {cause}"
            f"{advice if n_bits <= samples.n_units else ''}"
        )
    return tuple(notes)
