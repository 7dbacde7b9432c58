"""Recovery: decode, and say how well the answer predicts and how sure each term is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from mechspex.decoders import Additive, Automatic, Decoder, Kernel, Residual, decode, find_decoder
from mechspex.decoders.automatic import compare
from mechspex.decoders.cross_validation import cross_fit
from mechspex.decoders.decoder import Samples, check_samples
from mechspex.errors import Refused, ShapeError
from mechspex.evidence import Evidence, gather_evidence
from mechspex.link import FEWEST_MASKS, Link, monotone_link
from mechspex.scores import non_additive_share, r2_interval, r_squared
from mechspex.set_function import SetFunction
from mechspex.spex_design import SpexDesign

# Parts of the masks that a cross-fitted answer leaves out in turn.
_PARTS = 3
# More masks are worth a notice if twice as many would explain so much of what is left over.
_WORTH_IT = 0.2
# Nothing is left to explain beyond this.
_PERFECT = 0.9995


@dataclass(frozen=True)
class MoreMasks:
    """What more masks would bring, from the answers on half of the masks and on all of them.

    With 1 − R² = a·N^(−b) through both, N·2^(1/b) masks halve what is left over. b is taken to be 1
    at most: where recovery sets in at a threshold, the law does not hold.

    Attributes:
        n_masks: N.
        r2_of_half, r2: on the same test masks, from a random half of the masks and from all.
        pays: whether all are better than half by more than two standard errors, mask by mask, and
            twice as many would explain another fifth of the rest.
    """

    n_masks: int
    r2_of_half: float
    r2: float
    pays: bool

    @property
    def _left_by_twice(self) -> float:
        """2^(−b): the share of what is left over that twice the masks leave."""
        return max(0.5, (1 - self.r2) / (1 - self.r2_of_half))

    @property
    def r2_of_twice(self) -> float:
        """What twice the masks would reach, by this law."""
        return 1 - (1 - self.r2) * self._left_by_twice

    @property
    def to_halve(self) -> float:
        """How many masks halve what is left over, by this law; infinite if more do not help."""
        if self._left_by_twice >= 1:
            return np.inf
        return self.n_masks * 2 ** float(-1 / np.log2(self._left_by_twice))

    def __str__(self) -> str:
        if not self.pays:
            return "more masks would add little"
        return (
            f"more masks would pay: twice as many would bring R² {self.r2:.3f} to about "
            f"{self.r2_of_twice:.3f}; about {self.to_halve:,.0f} halve what is left over"
        )


@dataclass(frozen=True)
class Recovery:
    """A recovered set function, how well it predicts, and how sure its terms are.

    Attributes:
        function: every output's, over shared terms; its `coefficients` are the mean's.
        additive: the best function of singles from the same masks.
        r2, additive_r2: R² of both, of the mean over outputs, on `n_test` masks that neither has
            seen; where all 2^n masks were measured (`n_test` = 0), R² over all of them.
        r2_interval: 95% interval of `r2` over masks.
        n_train, n_test, n_failed: masks decoded, held out, and left out as not finite.
        evidence: how sure each term is; None where all masks were measured, so nothing is
            estimated, and where two thirds of the masks are too few for the decoder.
        link: the test for a monotone link; None likewise, and with fewer than 50 masks.
        more: what more masks would bring; None likewise, where nothing is left to explain, and for
            decoders of SPEX's design, half of which is another design.
    """

    function: SetFunction
    additive: SetFunction
    r2: float
    additive_r2: float
    r2_interval: tuple[float, float]
    n_train: int
    n_test: int
    n_failed: int = 0
    evidence: Evidence | None = None
    link: Link | None = None
    more: MoreMasks | None = None

    @property
    def non_additive_share(self) -> float:
        """How much of what singles leave unexplained the interactions explain."""
        return non_additive_share(self.r2, self.additive_r2)

    @property
    def exact(self) -> bool:
        """Whether all 2^n masks were measured, so that nothing is estimated."""
        return self.n_test == 0

    @property
    def notices(self) -> tuple[str, ...]:
        """What a reader of the terms should know first, one line each."""
        lines = list(self.function.notes)
        if len(self.function) == 1 and self.r2 < _PERFECT:
            lines.append("no term was found; more masks, or a lower keep, may show some")
        if self.evidence is not None:
            lines.append(_discoveries(self.evidence, self.function.n_units))
        if self.link is not None and self.link.recognised:
            lines.append(
                f"{self.link}: the interactions below may be one bent scale, not units that act "
                "together"
            )
        if self.more is not None and self.more.pays:
            lines.append(str(self.more))
        return tuple(lines)

    def __str__(self) -> str:
        return "\n".join([self.scores, *self.notices])

    @property
    def scores(self) -> str:
        """R², what is additive, and what is not, in two lines."""
        if self.exact:
            held_out = f"exact: all {self.n_train:,} masks measured"
        else:
            low, high = self.r2_interval
            held_out = (
                f"held-out R² {self.r2:.3f} [{low:.3f}, {high:.3f}] on {self.n_test:,} fresh "
                f"masks, decoded from {self.n_train:,}"
            )
        return (
            f"{held_out}\nadditive R² {self.additive_r2:.3f}   non-additive share "
            f"{self.non_additive_share:.2f}  (of what singles leave over, explained by "
            "interactions)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The recovery as plain numbers and lists; a number that is not finite is left as it is."""
        return {
            "r2": self.r2,
            "r2_interval": list(self.r2_interval),
            "additive_r2": self.additive_r2,
            "non_additive_share": self.non_additive_share,
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_failed": self.n_failed,
            "function": self.function.to_dict(),
            "additive": self.additive.to_dict(),
            "evidence": None if self.evidence is None else self.evidence.to_dict(),
            "link": None if self.link is None else asdict(self.link),
            "more": None if self.more is None else asdict(self.more),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Recovery:
        """What `to_dict` gave; null stands for a number that is not finite."""
        evidence, link, more = (record[name] for name in ("evidence", "link", "more"))
        low, high = (_number(end) for end in record["r2_interval"])
        return cls(
            function=SetFunction.from_dict(record["function"]),
            additive=SetFunction.from_dict(record["additive"]),
            r2=_number(record["r2"]),
            additive_r2=_number(record["additive_r2"]),
            r2_interval=(low, high),
            **{key: record[key] for key in ("n_train", "n_test", "n_failed")},
            evidence=None if evidence is None else Evidence.from_dict(evidence),
            link=None if link is None else Link(**link),
            more=None if more is None else MoreMasks(**more),
        )


def recover(
    masks: np.ndarray,
    values: np.ndarray,
    test_masks: np.ndarray,
    test_values: np.ndarray,
    *,
    decoder: str | Decoder = "automatic",
    keep: float | None = None,
    max_order: int | None = None,
    design: SpexDesign | None = None,
    designed: np.ndarray | None = None,
    prior: SetFunction | None = None,
    level: float = 0.05,
    resamples: int = 10,
    seed: int = 0,
) -> Recovery:
    """Decode masks and values, score the answer on test masks, and say how sure each term is.

    What is said of single terms rests on masks that are independent draws at `keep`, or SPEX's.

    Args:
        masks, values, decoder, keep, max_order, design, seed: as for `decode`.
        test_masks, test_values: of the same design, not among `masks`.
        designed: bool ``[mask]``, which masks are drawn with each unit kept with probability
            `keep`; all of them if not given. The others are decoded too, and left out where the
            design is what the mathematics rests on.
        prior: what is known of the function beforehand, such as `Candidates.function`; the decoder
            is given what it leaves over (see `Residual`). ``automatic`` compares additive and
            kernel with it and all its decoders without it.
        level: the false discovery rate of `Recovery.evidence`.
        resamples: how many random halves of the masks pursuit selects terms from anew.

    Raises:
        ShapeError: test masks or values that do not go with the others.
        Refused: a level outside (0, 1); and what `decode` raises.
    """
    if not 0 < level < 1:
        raise Refused(f"level = {level}: give a probability strictly between 0 and 1")
    if resamples < 0:
        raise Refused(f"resamples = {resamples}: give a whole number from 0 up")
    options: dict[str, Any] = {"keep": keep, "max_order": max_order, "seed": seed}
    samples = check_samples(masks, values, design=design, **options)
    test = check_samples(test_masks, test_values, keep=samples.keep, max_order=max_order, seed=seed)
    if test.masks.shape[1] != samples.n_units or test.values.shape[1] != samples.values.shape[1]:
        raise ShapeError(
            f"test masks {list(test.masks.shape)} and values {list(test.values.shape)} do not go "
            f"with masks {list(samples.masks.shape)} and values {list(samples.values.shape)}; "
            "give the same units and outputs"
        )
    chosen = find_decoder(decoder)
    chosen.check_budget(samples)
    chosen, function = _decoded(samples, chosen, prior)
    additive = decode(masks, values, decoder="additive", **options)
    truth = test.values.mean(axis=1)
    predicted = function.predict(test.masks)
    constant = len(function) == 1
    rows = np.arange(samples.n_masks) if designed is None else np.flatnonzero(designed)
    return Recovery(
        function=function,
        additive=additive,
        r2=r_squared(truth, predicted),
        additive_r2=r_squared(truth, additive.predict(test.masks)),
        r2_interval=r2_interval(truth, predicted),
        n_train=samples.n_masks,
        n_test=test.n_masks,
        evidence=None if constant else _evidence(samples, rows, chosen, function, level, resamples),
        link=monotone_link(samples.masks[rows], samples.values[rows], keep=samples.keep, seed=seed)
        if len(rows) >= FEWEST_MASKS and not constant
        else None,
        more=None if constant else _more_masks(samples, chosen, truth, predicted, test.masks),
    )


def _decoded(
    samples: Samples, decoder: Decoder, prior: SetFunction | None
) -> tuple[Decoder, SetFunction]:
    """The answer, and the decoder that gives it: of `automatic` what it chose on all masks, with
    which parts of them are decoded as well."""
    if isinstance(decoder, Automatic) and samples.n_units > 1:
        rivals = decoder.rivals(samples)
        if prior is not None:
            rivals += tuple(Residual(rival, prior) for rival in (Additive(), Kernel()))
        comparison = compare(samples, rivals)
        return comparison.chosen, comparison.decode(samples)
    chosen = decoder if prior is None else Residual(decoder, prior)
    return chosen, chosen.decode(samples)


def _evidence(
    samples: Samples,
    rows: Int[np.ndarray, " row"],
    decoder: Decoder,
    function: SetFunction,
    level: float,
    resamples: int,
) -> Evidence | None:
    n_left = samples.n_masks - -(-samples.n_masks // _PARTS)
    lone_group = decoder.needs_design and len(samples.groups) < 2
    if lone_group or n_left < decoder.minimum_masks(samples.n_units):
        return None
    without, residual = cross_fit(samples, decoder, _PARTS)
    return gather_evidence(
        samples.rows(rows),
        function,
        without,
        residual[rows],
        level=level,
        resamples=resamples,
    )


def _more_masks(
    samples: Samples,
    decoder: Decoder,
    truth: Float[np.ndarray, " mask"],
    predicted: Float[np.ndarray, " mask"],
    test_masks: np.ndarray,
) -> MoreMasks | None:
    r2 = r_squared(truth, predicted)
    n_half = samples.n_masks // 2
    # Half of SPEX's masks are another design.
    too_few = n_half < decoder.minimum_masks(samples.n_units) or len(truth) < 2
    if not r2 < _PERFECT or decoder.needs_design or too_few:
        return None
    half = np.random.default_rng((samples.seed, 3)).permutation(samples.n_masks)[:n_half]
    from_half = decoder.decode(samples.rows(half)).predict(test_masks)
    gain = (truth - from_half) ** 2 - (truth - predicted) ** 2
    sure = bool(gain.mean() > 2 * stats.sem(gain))
    law = MoreMasks(samples.n_masks, r_squared(truth, from_half), r2, pays=False)
    if not sure:
        return law
    worth = (law.r2_of_twice - r2) > _WORTH_IT * (1 - r2)
    return MoreMasks(law.n_masks, law.r2_of_half, r2, pays=worth)


def _discoveries(evidence: Evidence, n_units: int) -> str:
    found = len(evidence.interactions)
    orders = max((len(term) for term in evidence.terms), default=1)
    among = f"sets of up to {orders} of {n_units:,} units"
    return (
        f"by these masks alone {evidence.n_singles} singles and {found} interactions stand out "
        f"among all {among} (false discovery rate {evidence.level:g})"
    )


def _number(stored: float | None) -> float:
    return float("nan") if stored is None else stored
