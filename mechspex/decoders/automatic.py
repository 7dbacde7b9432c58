"""Automatic decoder: the best of the others, or the mean of some, by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from mechspex.decoders.additive import Additive
from mechspex.decoders.cross_validation import folds, held_out_predictions
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.decoders.kernel import Kernel
from mechspex.decoders.proxyspex import ProxySpex
from mechspex.decoders.pursuit import Pursuit
from mechspex.decoders.spex import Spex
from mechspex.scores import r_squared
from mechspex.set_function import SetFunction, Term

_HELD_OUT = 250
# Whatever leaves less than this share of the variance is exact, and nothing is better.
_ROUNDING = 1e-12
# By how many standard errors of the difference in squared error, mask by mask, a single decoder
# must beat the simplest, and a mean the single: averaging pays more on the smaller training sets
# of cross-validation than on all masks, so it needs the stronger evidence.
_EVIDENCE = {1: 1.0, 2: 2.0, 3: 2.0}


@dataclass(frozen=True)
class Comparison:
    """Cross-validated R² of some decoders, and the choice that follows.

    Attributes:
        scores: {decoder name: R² on held-out masks}.
        chosen: one decoder, or the mean of several.
        r2: the R² of `chosen` on held-out masks.
    """

    scores: dict[str, float]
    chosen: Decoder
    r2: float

    def __str__(self) -> str:
        names = self.chosen.name.split(" and ")
        used = " and ".join(f"{name} ({self.scores[name]:.3f})" for name in names)
        if len(names) > 1:
            used = f"mean of {used}, cross-validated R² {self.r2:.3f}"
        else:
            used = f"{names[0]} (cross-validated R² {self.r2:.3f})"
        others = ", ".join(f"{n} {r2:.3f}" for n, r2 in self.scores.items() if n not in names)
        return f"{used}; {others}" if others else used


@dataclass(frozen=True)
class Mean(Decoder):
    """The mean of several decoders' answers, in the Fourier basis."""

    decoders: tuple[Decoder, ...] = ()

    @property
    def name(self) -> str:  # type: ignore[override]
        return " and ".join(decoder.name for decoder in self.decoders)

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


@dataclass(frozen=True)
class Automatic(Decoder):
    """Whatever explains held-out masks best: one of `decoders` or a mean of two or three.

    Attributes:
        decoders: the choice, simplest first: a later one is taken only where it clearly pays.
    """

    name: ClassVar[str] = "automatic"

    decoders: tuple[Decoder, ...] = (Additive(), Pursuit(), ProxySpex(rates=(0.1,)), Kernel())

    def rivals(self, samples: Samples) -> tuple[Decoder, ...]:
        """The decoders compared: with SPEX where the masks hold groups of its design."""
        return (*self.decoders, Spex()) if len(samples.groups) > 1 else self.decoders

    def minimum_masks(self, n_units: int) -> int:
        # Every fold must leave four fifths of the masks to every decoder.
        return -(-max(decoder.minimum_masks(n_units) for decoder in self.decoders) * 5 // 4)

    def fit(self, samples: Samples) -> SetFunction:
        comparison = compare(samples, self.rivals(samples))
        answer = comparison.chosen.decode(samples)
        return replace(answer, notes=(f"automatic: {comparison}", *answer.notes))


def compare(samples: Samples, decoders: tuple[Decoder, ...]) -> Comparison:
    """Cross-validate `decoders` on the same folds and choose one, or a mean of two or three.

    The first is the simplest and is left only on evidence; so is a single decoder for a mean.
    """
    splits = folds(samples, _HELD_OUT)
    truth = np.concatenate([samples.values[test] for _, test in splits])
    predicted = {d: held_out_predictions(samples, d, splits) for d in decoders}
    chosen = decoders[:1]
    errors = _squared_errors(truth, predicted[decoders[0]])
    rounding = _ROUNDING * float(((truth - truth.mean(axis=0)) ** 2).sum())
    for size, evidence in _EVIDENCE.items():
        if errors.sum() <= rounding:
            break
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
    scores = {decoder.name: r_squared(truth, predicted[decoder]) for decoder in decoders}
    best = np.mean([predicted[d] for d in chosen], axis=0)
    return Comparison(
        scores, chosen[0] if len(chosen) == 1 else Mean(chosen), r_squared(truth, best)
    )


def _squared_errors(
    truth: Float[np.ndarray, "mask output"], predicted: Float[np.ndarray, "mask output"]
) -> Float[np.ndarray, " mask"]:
    return ((truth - predicted) ** 2).sum(axis=1)
