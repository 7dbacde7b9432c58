"""What was recovered: the set function, how well it predicts, and how sure each term is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from mechspex.core.json_values import read_number, read_text, read_whole
from mechspex.core.result import Result
from mechspex.recovery.evidence import Evidence
from mechspex.recovery.monotone_link import Link
from mechspex.set_functions.r_squared import non_additive_share
from mechspex.set_functions.set_function import SetFunction

if TYPE_CHECKING:
    import matplotlib.figure

# Nothing is left to explain beyond this.
_PERFECT = 0.9995
# Below this R² a recovered function says little of single terms.
_GOOD = 0.8
# Below this share of the pairs it is not worth a line.
_TOO_FEW = 0.005


@dataclass(frozen=True)
class MoreMasks:
    """What more masks would bring, from the answers on half of the masks and on all of them.

    The law 1 − R² = a·N^(−b) is drawn through both. By it N·2^(1/b) masks halve the unexplained
    variance. b is taken to be at most 1: where recovery sets in at a threshold, the law does not
    hold.

    Attributes:
        n_masks: the number N of masks.
        r2_of_half, r2: R² on the same test masks, of the answer from a random half of the masks
            and of the answer from all.
        pays: whether more masks pay: all masks do better than half of them by more than two
            standard errors, mask by mask, and twice as many would explain another fifth of the
            rest.
    """

    n_masks: int
    r2_of_half: float
    r2: float
    pays: bool

    @property
    def _left_by_twice(self) -> float:
        """2^(−b): the share of the unexplained variance that twice the masks leave unexplained."""
        return max(0.5, (1 - self.r2) / (1 - self.r2_of_half))

    @property
    def r2_of_twice(self) -> float:
        """The R² that twice the masks would reach, by this law."""
        return 1 - (1 - self.r2) * self._left_by_twice

    @property
    def to_halve(self) -> float:
        """How many masks halve the unexplained variance, by this law; infinite if none do."""
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


@dataclass(frozen=True, eq=False, repr=False)
class Recovery(Result):
    """A recovered set function, how well it predicts, and how sure its terms are.

    Attributes:
        function: the recovered function of every output, over shared terms; its `coefficients`
            are those of the mean over outputs.
        additive: the best function of single units from the same masks.
        r2, additive_r2: R² of `function` and of `additive` for the mean over outputs, on `n_test`
            masks that neither has seen. Where all 2^n masks were measured (`n_test` = 0) it is R²
            over all of them.
        r2_interval: the 95% interval of `r2` over masks.
        n_train, n_test, n_failed: how many masks were decoded, how many held out, and how many
            left out because their values are not finite.
        evidence: how sure each term is. None where all masks were measured, since nothing is
            estimated then, and where two thirds of the masks are too few for the decoder.
        link: the test for a monotone link. None where all masks were measured, and with fewer than
            50 masks.
        more: what more masks would bring. None where all masks were measured, where nothing is left
            to explain, and for decoders of SPEX's design, since half of it is another design.
        unseen_pairs: the share of all pairs of units of which no decoded mask ablates both:
            nothing is known of these. None where that was not counted.
        decoder_scores: {decoder: cross-validated R²} of the decoders that ``automatic`` compared;
            empty for another decoder.
    """

    schema: ClassVar[str] = "mechspex.recovery/1"
    within: ClassVar[bool] = True
    called: ClassVar[str] = "recovery"

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
    unseen_pairs: float | None = None
    decoder_scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def non_additive_share(self) -> float:
        """The share of the variance left by singles that interactions explain.

        1 − (1 − R²)/(1 − additive R²).
        """
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
        elif self.r2 < _GOOD:
            lines.append(
                f"R² {self.r2:.2f} is a poor fit: of the recovered function only what was measured "
                "exactly may be used; more masks, another decoder or a higher keep may help"
            )
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

    def to_pandas(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """The recovered function, one row a term, largest first.

        Args:
            names: the name of each unit; its column number if not given.
        """
        return self.function.to_pandas(names)

    def plot(self, names: Sequence[str] | None = None) -> "matplotlib.figure.Figure":
        """The largest terms of the recovered function, as bars.

        Args:
            names: the name of each unit; its column number if not given.
        """
        return self.function.plot(names)

    @property
    def in_short(self) -> str:
        """The first line of `scores`."""
        return self.scores.split("\n")[0]

    def __str__(self) -> str:
        return "\n".join([self.scores, *self.notices])

    @property
    def scores(self) -> str:
        """R², what is additive, what is not, and what no mask could show, in two or three lines."""
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
            f"interactions){self._unseen}"
        )

    @property
    def unseen_share(self) -> float | None:
        """`unseen_pairs`; None where they are too few to be worth a word."""
        share = self.unseen_pairs or 0.0
        return None if share < _TOO_FEW else share

    @property
    def _unseen(self) -> str:
        share = self.unseen_share
        if share is None:
            return ""
        return (
            f"\nnothing is known of {share:.0%} of the pairs: no mask ablates both; more masks or "
            "a lower keep would show them"
        )

    def to_dict(self) -> dict[str, Any]:
        """The recovery as plain numbers and lists; numbers that are not finite stay in it."""
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
            "link": None if self.link is None else self.link.to_dict(),
            "more": None if self.more is None else asdict(self.more),
            "unseen_pairs": self.unseen_pairs,
        }

    def to_record(self) -> dict[str, Any]:
        """`to_dict` and the scores of the decoders."""
        return super().to_record() | {"decoder_scores": dict(self.decoder_scores)}

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Recovery:
        evidence, link, more = (record[name] for name in ("evidence", "link", "more"))
        unseen = record.get("unseen_pairs")
        low, high = (read_number(end) for end in record["r2_interval"])
        return cls(
            function=SetFunction.from_dict(record["function"]),
            additive=SetFunction.from_dict(record["additive"]),
            r2=read_number(record["r2"]),
            additive_r2=read_number(record["additive_r2"]),
            r2_interval=(low, high),
            **{key: read_whole(record[key]) for key in ("n_train", "n_test", "n_failed")},
            evidence=None if evidence is None else Evidence.from_dict(evidence),
            link=None if link is None else Link.from_dict(link),
            more=None if more is None else MoreMasks(**more),
            # Answers that were kept before this was counted have no such entry.
            unseen_pairs=None if unseen is None else read_number(unseen),
            decoder_scores={
                read_text(name): read_number(r2)
                for name, r2 in record.get("decoder_scores", {}).items()
            },
        )


def _discoveries(evidence: Evidence, n_units: int) -> str:
    n_sets = len(evidence.interactions)
    orders = max((len(term) for term in evidence.terms), default=1)
    among = f"sets of up to {orders} of {n_units:,} units"
    return (
        f"by these masks alone {evidence.n_singles} singles and {n_sets} interactions stand out "
        f"among all {among} (false discovery rate {evidence.level:g})"
    )
