"""How sure each recovered term is: unbiased coefficients, intervals, false discoveries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from mechspex.core.json_values import read_array, read_number, read_term
from mechspex.core.masks import Stream
from mechspex.core.result import Result
from mechspex.core.statistics import (
    clustered_error,
    discovered,
    halfwidth,
    hotelling_p,
    two_sided_p,
)
from mechspex.core.units import Term
from mechspex.decoders.decoder import Samples
from mechspex.decoders.pursuit import Pursuit
from mechspex.set_functions.bases import features
from mechspex.set_functions.set_function import SetFunction

if TYPE_CHECKING:
    import matplotlib.figure

# Rows that the text shows.
_SHOWN = 20
# Terms of a function that are tested: the largest.
_MOST_TERMS = 2_000
# Units among which terms are selected anew from each half of the masks.
_MOST_UNITS = 200
# A sum that rests on fewer masks than this, effectively, has no distribution to speak of.
_FEWEST_EFFECTIVE = 8


@dataclass(frozen=True, eq=False, repr=False)
class Evidence(Result):
    """What the masks say of each term of a recovered function, in the fourier(p) basis.

    Attributes:
        terms: the terms tested, largest first, without the constant.
        coefficients: unbiased estimates of F(S), mean over outputs.
        intervals: the coefficients' intervals, one row ``[low, high]`` a term, each end at
            `level` / 2.
        p_values: the p-value of F(S) = 0 for all outputs, one a term.
        discovered: whether a term is significant at the false discovery rate `level`. All sets of
            the function's orders are counted, not only the sets that it names.
        selected: the share of random halves of the masks in which pursuit picks the term; NaN
            where selection was not repeated.
        level: the expected share of false terms among the discovered ones.
    """

    schema: ClassVar[str] = "mechspex.evidence/1"
    within: ClassVar[bool] = True
    called: ClassVar[str] = "evidence"

    terms: tuple[Term, ...]
    coefficients: Float[np.ndarray, " term"]
    intervals: Float[np.ndarray, "term 2"]
    p_values: Float[np.ndarray, " term"]
    discovered: Bool[np.ndarray, " term"]
    selected: Float[np.ndarray, " term"]
    level: float

    @property
    def n_singles(self) -> int:
        """How many single units are discovered."""
        return sum(
            len(term) == 1 for term, sure in zip(self.terms, self.discovered, strict=True) if sure
        )

    @property
    def interactions(self) -> tuple[Term, ...]:
        """The discovered terms of order two and up."""
        pairs = zip(self.terms, self.discovered, strict=True)
        return tuple(term for term, sure in pairs if sure and len(term) > 1)

    def plot(self, names: Sequence[str] | None = None) -> "matplotlib.figure.Figure":
        """The largest terms with their intervals, and how often half of the masks pick each.

        Args:
            names: the name of each unit; its column number if not given.
        """
        from mechspex.figures.stability import stability

        return stability(self, names)

    def to_dict(self) -> dict[str, Any]:
        """The evidence as plain numbers and lists; JSON can hold it."""
        return {
            "terms": [list(term) for term in self.terms],
            "coefficients": self.coefficients.tolist(),
            "intervals": [
                None if np.isnan(low) else [low, high] for low, high in self.intervals.tolist()
            ],
            "p_values": self.p_values.tolist(),
            "discovered": self.discovered.tolist(),
            "selected": [None if np.isnan(share) else share for share in self.selected.tolist()],
            "level": self.level,
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Evidence:
        terms = tuple(read_term(stored) for stored in record["terms"])
        ends = [interval or (None, None) for interval in record["intervals"]]
        columns = {
            name: read_array(record[name], "term", rows=len(terms))
            for name in ("coefficients", "p_values", "selected")
        }
        return cls(
            terms=terms,
            intervals=read_array(ends, "term", "end", rows=len(terms)).reshape(-1, 2),
            discovered=read_array(record["discovered"], "term", rows=len(terms)).astype(bool),
            **columns,
            level=read_number(record["level"]),
        )

    @property
    def in_short(self) -> str:
        """How many terms were tested, and how many of them are discovered."""
        return (
            f"{len(self.terms):,} terms tested, {np.count_nonzero(self.discovered):,} discovered "
            f"(false discovery rate {self.level:g})"
        )

    def __str__(self) -> str:
        frame = self.to_pandas()
        shown = frame.head(_SHOWN).to_string(index=False, float_format="{:+.3g}".format)
        weaker = f"… and {len(frame) - _SHOWN:,} smaller ones"
        return "\n".join([self.in_short, shown, *([weaker] if len(frame) > _SHOWN else [])])

    def to_pandas(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """A frame with one row a term, largest first.

        Args:
            names: the name of each unit; its column number if not given.
        """
        return pd.DataFrame(
            {
                "units": [
                    " × ".join(str(i) if names is None else names[i] for i in term)
                    for term in self.terms
                ],
                "order": [len(term) for term in self.terms],
                "coefficient": self.coefficients,
                "low": self.intervals[:, 0],
                "high": self.intervals[:, 1],
                "p": self.p_values,
                "discovered": self.discovered,
                "selected": self.selected,
            }
        )


def gather_evidence(
    samples: Samples,
    function: SetFunction,
    without: Sequence[dict[Term, Float[np.ndarray, " output"]]],
    residual: Float[np.ndarray, "mask output"],
    *,
    level: float,
    resamples: int,
) -> Evidence:
    """Estimate and test the terms of a function that was recovered from `samples`.

    In a basis that is orthonormal under the design, F(S) = E[z_S(m) f(m)] whatever f is. Let f̂₋ be
    recovered from the other parts of the masks. The estimate

        F̂(S) = mean over parts of F̂₋(S)  +  mean over masks of z_S(m) (f(m) − f̂₋(m))

    is unbiased, however wrong f̂₋ may be, and the more precise the better f̂₋ is: its error is that
    of the second mean (cross-fitting: Chernozhukov et al. 2018, definition 3.2; prediction-powered
    inference: Angelopoulos et al. 2023).

    Student's t gives p-values, its degrees of freedom the effective number of masks behind the
    second mean. With several outputs there are two p-values, one for the mean over outputs and one
    of Hotelling's T² for all of them; the smaller counts, doubled.

    The false discovery rate is controlled among the C(n, k) sets of each order k, up to the largest
    order of the function; each order gets the same share of the level (Benjamini & Hochberg 1995;
    weights: Genovese, Roeder & Wasserman 2006). Sets that the function does not name count as
    tested and not significant, so terms may have been chosen on these very masks.

    Args:
        samples: masks drawn independently from the product design with p = `samples.keep`; or
            SPEX's masks, of which those of one delay count as one draw.
        function: the function that was recovered from them.
        without: for each part of the masks {term: coefficients} recovered without it; see
            `cross_fit`.
        residual: f − f̂₋ for each mask and output; see `cross_fit`.
        level: the false discovery rate.
        resamples: how many random halves of the masks pursuit selects terms from anew, in
            complementary pairs (Shah & Samworth 2013), among the units of the function; 0 leaves
            selection out.
    """
    fourier = function.to_basis("fourier", samples.keep).truncate(_MOST_TERMS)
    sizes = np.linalg.norm(fourier.output_coefficients, axis=1)
    terms = tuple(fourier.terms[i] for i in np.argsort(-sizes, kind="stable") if fourier.terms[i])
    predicted = np.mean(
        [[part.get(term, _zero(function)) for term in terms] for part in without], axis=0
    ).reshape(len(terms), function.n_outputs)
    columns = features(samples.masks, terms, basis="fourier", keep=samples.keep)
    outputs = predicted + columns.T @ residual / samples.n_masks
    blocks = samples.blocks
    estimates, errors, degrees = _mean_and_error(predicted, columns, residual, blocks)
    # The fourth moment that the masks should have: where the rare ones are missing, so is evidence.
    kurtosis = 1 / (samples.keep * (1 - samples.keep)) - 3
    fourths = samples.n_masks * kurtosis ** np.array([len(term) for term in terms], dtype=float)
    bearing = np.maximum((columns**2).sum(axis=0) ** 2 / fourths, 1.0)
    degrees = np.minimum(degrees, bearing)
    p_values = two_sided_p(estimates / errors, degrees)
    if function.n_outputs > 1:
        joint = _joint_p_values(outputs, columns, residual, degrees, blocks)
        p_values = np.minimum(1, 2 * np.minimum(p_values, joint))
    half = halfwidth(errors, degrees, level)
    too_few = bearing < _FEWEST_EFFECTIVE
    p_values[too_few], half[too_few] = 1.0, np.nan
    # Each order has the same share of the level, and all its sets count.
    n_orders = max(map(len, terms), default=1)
    family = np.array([n_orders * math.comb(samples.n_units, len(t)) for t in terms], dtype=float)
    return Evidence(
        terms=terms,
        coefficients=estimates,
        intervals=np.stack([estimates - half, estimates + half], axis=1),
        p_values=p_values,
        discovered=discovered(p_values, level, family),
        selected=_selected(samples, terms, resamples),
        level=level,
    )


def _zero(function: SetFunction) -> Float[np.ndarray, " output"]:
    return np.zeros(function.n_outputs)


def _mean_and_error(
    predicted: Float[np.ndarray, "term output"],
    columns: Float[np.ndarray, "mask term"],
    residual: Float[np.ndarray, "mask output"],
    blocks: Int[np.ndarray, " mask"],
) -> tuple[Float[np.ndarray, " term"], Float[np.ndarray, " term"], Float[np.ndarray, " term"]]:
    """Estimate of the mean over outputs, its standard error, and the degrees of freedom of that.

    The degrees are the effective number of blocks: near p = 1 products of several units are large
    on a few rare masks and small on all others.
    """
    summands = columns * residual.mean(axis=1)[:, None]
    errors, degrees = clustered_error(summands, blocks)
    # What float32 values cannot tell from zero is no evidence.
    scale = np.finfo(np.float32).eps * np.abs(predicted).max(initial=0.0)
    errors = np.maximum(errors, max(scale, np.finfo(float).tiny))
    return predicted.mean(axis=1) + summands.mean(axis=0), errors, degrees


def _joint_p_values(
    outputs: Float[np.ndarray, "term output"],
    columns: Float[np.ndarray, "mask term"],
    residual: Float[np.ndarray, "mask output"],
    degrees: Float[np.ndarray, " term"],
    blocks: Int[np.ndarray, " mask"],
) -> Float[np.ndarray, " term"]:
    """p-values of "no output has the term", by Hotelling's T² on the residual's covariance."""
    floor = (np.finfo(np.float32).eps * np.abs(outputs).max(initial=0.0)) ** 2 * len(residual)
    return np.array(
        [
            hotelling_p(
                estimate,
                columns[:, [place]] * residual,
                blocks,
                degrees[place],
                floor=floor / len(residual),
            )
            for place, estimate in enumerate(outputs)
        ]
    )


def _selected(
    samples: Samples, terms: tuple[Term, ...], resamples: int
) -> Float[np.ndarray, " term"]:
    pursuit = Pursuit()
    if not resamples or not terms or samples.n_masks // 2 < pursuit.minimum_masks(samples.n_units):
        return np.full(len(terms), np.nan)
    # The largest terms name the units; few enough of them that a selection takes little time.
    named = dict.fromkeys(unit for term in terms for unit in term)
    # At least two, as a lone unit may be kept, or ablated, in all of a half.
    units = list(dict.fromkeys([*named, *range(min(2, samples.n_units))]))[:_MOST_UNITS]
    column_of = {unit: column for column, unit in enumerate(sorted(units))}
    among = samples.among(np.array(sorted(units)))
    rng = np.random.default_rng((samples.seed, Stream.RESAMPLES))
    counts: dict[Term, int] = {}
    n_halves = 0
    while n_halves < resamples:
        shuffled = rng.permutation(samples.n_masks)
        for half in np.array_split(shuffled, 2)[: resamples - n_halves]:
            n_halves += 1
            answer = pursuit.decode(among.rows(half))
            for term in answer.to_basis("fourier", samples.keep).terms:
                counts[term] = counts.get(term, 0) + 1
    own = [
        tuple(column_of[unit] for unit in term) if set(term) <= set(column_of) else None
        for term in terms
    ]
    return np.array([np.nan if t is None else counts.get(t, 0) / n_halves for t in own])
