"""Automatic decoder: the best of the others, or the mean of some, by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.core.units import Term
from mechspex.decoders.additive import Additive
from mechspex.decoders.cross_validation import folds
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.kernel import Kernel
from mechspex.decoders.proxyspex import ProxySpex
from mechspex.decoders.pursuit import Pursuit, charged_r2
from mechspex.decoders.spex.decoder import Spex
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

# Masks that the folds hold out together, at least.
_HELD_OUT = 250
# A decoder is exact, and no other can be better, if its squared error on held-out masks is below
# this share of Σ(f − mean f)².
_ROUNDING_OF_VARIANCE = 1e-12
# A decoder that reaches this R² on held-out masks leaves others nothing that anyone would notice.
_PERFECT = 0.9995
# Entries of the masks beyond which pursuit takes minutes, and is not cross-validated.
_COSTLY = 1 << 26
# Recovery has not failed if the choice reaches this R² on held-out masks.
_WELL = 0.95
# What pursuit on all masks must gain over that choice where it was cross-validated too: beyond its
# threshold it gains far more.
_CLEARLY = 0.05
# {decoders in the mean: standard errors}. The gain in squared error, mask by mask, must exceed so
# many of its standard errors: for one decoder over the simplest, for a mean over the choice so far.
# Averaging pays more on the smaller training sets of cross-validation than on all masks, so a mean
# needs the stronger evidence.
_EVIDENCE = {1: 1.0, 2: 2.0, 3: 2.0}


@dataclass(frozen=True)
class DecoderComparison:
    """Cross-validated R² of some decoders, and the choice that follows.

    Attributes:
        scores: {decoder name: R² on held-out masks}.
        chosen: one decoder, or the mean of several, with the options that held-out masks settled.
        r2: the R² of `chosen` on held-out masks. Where `answer` is given, its `charged_r2`.
        answer: what `chosen` recovers from all masks, where the choice rests on that answer.
    """

    scores: dict[str, float]
    chosen: Decoder
    r2: float
    answer: SetFunction | None = None

    def decode(self, samples: Samples) -> SetFunction:
        """What `chosen` recovers from all masks, with a note that says why it was chosen.

        Args:
            samples: the masks and values that were compared on.
        """
        answer = self.chosen.decode(samples) if self.answer is None else self.answer
        return replace(answer, notes=(f"automatic: {self}", *answer.notes))

    def __str__(self) -> str:
        if self.answer is not None:
            tried = ", ".join(f"{name} {r2:.3f}" for name, r2 in self.scores.items())
            return (
                f"{self.chosen.name} on all masks (R² {self.r2:.3f} after what finding its "
                f"{len(self.answer) - 1} terms costs); cross-validated on fewer: {tried}"
            )
        names = self.chosen.name.split(" and ")
        used = " and ".join(f"{name} ({self.scores[name]:.3f})" for name in names)
        if len(names) > 1:
            used = f"mean of {used}, cross-validated R² {self.r2:.3f}"
        else:
            used = f"{names[0]} (cross-validated R² {self.r2:.3f})"
        others = ", ".join(f"{n} {r2:.3f}" for n, r2 in self.scores.items() if n not in names)
        return f"{used}; {others}" if others else used


@dataclass(frozen=True, repr=False)
class Mean(Decoder):
    """The mean of several decoders' answers, in the Fourier basis.

    Attributes:
        decoders: the decoders whose answers are averaged.
    """

    decoders: tuple[Decoder, ...] = ()

    @property
    def name(self) -> str:  # type: ignore[override]
        return " and ".join(decoder.name for decoder in self.decoders)

    @property
    def needs_design(self) -> bool:  # type: ignore[override]
        return any(decoder.needs_design for decoder in self.decoders)

    def minimum_masks(self, n_units: int) -> int:
        return max(decoder.minimum_masks(n_units) for decoder in self.decoders)

    def fit(self, samples: Samples) -> SetFunction:
        total: dict[Term, np.ndarray] = {}
        notes: tuple[str, ...] = ()
        for decoder in self.decoders:
            answer = decoder.decode(samples).to_basis("fourier", samples.keep)
            notes += answer.notes
            for term, value in zip(answer.terms, answer.output_coefficients, strict=True):
                total[term] = total.get(term, 0.0) + value / len(self.decoders)
        return samples.function(total, notes=notes)


@dataclass(frozen=True, repr=False)
class Automatic(Decoder):
    """Whatever explains held-out masks best: one of `decoders` or a mean of two or three.

    Attributes:
        decoders: the decoders to choose from, simplest first. A later one is taken only where it
            clearly pays.
    """

    name: ClassVar[str] = "automatic"

    decoders: tuple[Decoder, ...] = (Additive(), Pursuit(), ProxySpex(rates=(0.1,)), Kernel())

    def rivals(self, samples: Samples) -> tuple[Decoder, ...]:
        """The decoders that are compared; SPEX is one where the masks hold groups of its design."""
        return (*self.decoders, Spex()) if len(samples.groups) > 1 else self.decoders

    def minimum_masks(self, n_units: int) -> int:
        # Every fold must leave four fifths of the masks to every decoder.
        return -(-max(decoder.minimum_masks(n_units) for decoder in self.decoders) * 5 // 4)

    def fit(self, samples: Samples) -> SetFunction:
        return compare(samples, self.rivals(samples)).decode(samples)


def compare(samples: Samples, decoders: tuple[Decoder, ...]) -> DecoderComparison:
    """Cross-validate `decoders` on the same folds and choose one, or a mean of two or three.

    The first decoder is the simplest, and stays the choice unless the evidence is for another. A
    mean needs evidence over a single decoder in the same way. A decoder that is as good as exact on
    held-out masks ends the comparison. Where no decoder does well, pursuit is tried on all masks:
    sparse recovery succeeds at a threshold, which the training masks of a fold can miss. Where a
    fit of pursuit takes minutes, that fit is its only one.

    Args:
        samples: the masks and values to compare on.
        decoders: the decoders to compare, simplest first.
    """
    pursuit = next((decoder for decoder in decoders if isinstance(decoder, Pursuit)), None)
    costly = samples.masks.size > _COSTLY
    splits = folds(samples, _HELD_OUT)
    truth = np.concatenate([samples.values[test] for _, test in splits])
    energy = float(((truth - truth.mean(axis=0)) ** 2).sum())
    predicted: dict[Decoder, np.ndarray] = {}
    for decoder in decoders:
        if costly and decoder is pursuit:
            continue
        held_out, settled = decoder.predict_held_out(samples, splits)
        predicted[settled] = held_out
        error = float(_squared_errors(truth, held_out).sum())
        if error <= _ROUNDING_OF_VARIANCE * energy:
            return _comparison(truth, predicted, (settled,))
        if error <= (1 - _PERFECT) * energy:
            break
    comparison = _comparison(truth, predicted, _best_group(truth, predicted))
    if pursuit is None or (comparison.r2 >= _WELL and not costly):
        return comparison
    answer = pursuit.decode(samples)
    r2 = charged_r2(samples, answer)
    if r2 <= comparison.r2 + (0.0 if costly else _CLEARLY):
        return comparison
    return replace(comparison, chosen=pursuit, r2=r2, answer=answer)


def _best_group(
    truth: Float[np.ndarray, "mask output"], predicted: dict[Decoder, np.ndarray]
) -> tuple[Decoder, ...]:
    decoders = tuple(predicted)
    chosen = decoders[:1]
    errors = _squared_errors(truth, predicted[decoders[0]])
    for size, evidence in _EVIDENCE.items():
        rivals = {
            group: _squared_errors(truth, np.mean([predicted[d] for d in group], axis=0))
            for group in combinations(decoders, size)
        }
        if not rivals:
            break
        group = min(rivals, key=lambda g: rivals[g].sum())
        gain = errors - rivals[group]
        if gain.mean() > evidence * gain.std() / np.sqrt(len(gain)):
            chosen, errors = group, rivals[group]
    return chosen


def _comparison(
    truth: Float[np.ndarray, "mask output"],
    predicted: dict[Decoder, np.ndarray],
    chosen: tuple[Decoder, ...],
) -> DecoderComparison:
    scores = {decoder.name: r_squared(truth, values) for decoder, values in predicted.items()}
    best = np.mean([predicted[decoder] for decoder in chosen], axis=0)
    decoder = chosen[0] if len(chosen) == 1 else Mean(chosen)
    return DecoderComparison(scores, decoder, r_squared(truth, best))


def _squared_errors(
    truth: Float[np.ndarray, "mask output"], predicted: Float[np.ndarray, "mask output"]
) -> Float[np.ndarray, " mask"]:
    return ((truth - predicted) ** 2).sum(axis=1)
