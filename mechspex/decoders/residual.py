"""Residual decoder: another decoder recovers what a known function does not explain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mechspex.core.errors import ShapeError
from mechspex.core.units import Term
from mechspex.decoders.decoder import Decoder, Samples
from mechspex.set_functions.set_function import SetFunction


@dataclass(frozen=True, repr=False)
class Residual(Decoder):
    """prior + decoder(values − prior): masks are spent on what is not known beforehand.

    A decoder shrinks uncertain coefficients towards zero. Here it shrinks them towards the prior.

    Attributes:
        decoder: the decoder of the values that remain once the prior is taken off.
        prior: a function of the same units, such as a screen's predictions. A prior with one
            output stands for every output.

    Raises:
        ShapeError: a prior of other units or outputs.
    """

    decoder: Decoder
    prior: SetFunction

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.decoder.name} beyond a prior"

    @property
    def needs_design(self) -> bool:  # type: ignore[override]
        return self.decoder.needs_design

    def minimum_masks(self, n_units: int) -> int:
        return self.decoder.minimum_masks(n_units)

    def fit(self, samples: Samples) -> SetFunction:
        n_outputs = samples.values.shape[1]
        if self.prior.n_units != samples.n_units or self.prior.n_outputs not in (1, n_outputs):
            raise ShapeError(
                f"the prior has {self.prior.n_units} units and {self.prior.n_outputs} outputs, the "
                f"samples {samples.n_units} and {n_outputs}; give the same, or one output for all"
            )
        residual = samples.values - self.prior.predict_outputs(samples.masks)
        answer = self.decoder.decode(replace(samples, values=residual))
        total: dict[Term, np.ndarray] = {}
        for part in (self.prior, answer):
            fourier = part.to_basis("fourier", samples.keep)
            for term, value in zip(fourier.terms, fourier.output_coefficients, strict=True):
                # Zeros, one an output: a prior of one output is stretched to all of them.
                total[term] = total.get(term, np.zeros(n_outputs)) + value
        return samples.function(total, notes=answer.notes)
