"""How well a proxy agrees with the full model, measured before the proxy is trusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.checks import SEED, WHOLE
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.json_values import plain, read_array, read_term, read_whole
from mechspex.core.result import Result
from mechspex.core.statistics import correlation, rank_correlation
from mechspex.core.units import Term, check_same_units
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function, as_values
from mechspex.effects.validate import validate
from mechspex.screening.candidates import Candidates

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(Result):
    """Predicted effects of some sets beside the exact ones.

    Attributes:
        terms: the sets.
        predicted, exact: ablated(T) by the proxy and by the full model. A set of which one of them
            is not finite is in none of the numbers below.
        k: how many of the largest effects `recall` counts.
    """

    schema: ClassVar[str] = "mechspex.agreement/1"
    called: ClassVar[str] = "agreement"

    terms: tuple[Term, ...]
    predicted: Float[np.ndarray, " term"]
    exact: Float[np.ndarray, " term"]
    k: int

    @property
    def correlation(self) -> float:
        """Pearson's r."""
        return correlation(*self._finite)

    @property
    def rank_correlation(self) -> float:
        """Spearman's."""
        return rank_correlation(*self._finite)

    @property
    def same_sign(self) -> float:
        """The share of sets whose effect has the predicted sign."""
        predicted, exact = self._finite
        return float(np.mean(np.sign(predicted) == np.sign(exact))) if len(exact) else np.nan

    @property
    def recall(self) -> float:
        """The share of the `k` largest exact effects that are among the 2 · `k` largest predicted
        ones."""
        predicted, exact = self._finite
        top = _largest(exact, self.k)
        return len(top & _largest(predicted, 2 * self.k)) / max(1, len(top))

    @property
    def _finite(self) -> tuple[Float[np.ndarray, " finite"], Float[np.ndarray, " finite"]]:
        """Both effects of the sets that have both."""
        there = np.isfinite(self.predicted) & np.isfinite(self.exact)
        return self.predicted[there], self.exact[there]

    def to_pandas(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a set: its units, the predicted and the exact effect.

        Args:
            names: the name of each unit; its column number if not given.
        """
        return pd.DataFrame(
            {
                "units": [
                    " × ".join(str(i) if names is None else names[i] for i in term)
                    for term in self.terms
                ],
                "predicted": self.predicted,
                "exact": self.exact,
            }
        )

    def plot(self) -> "matplotlib.figure.Figure":
        """A dot a set: what the proxy predicts, and what the model does."""
        from mechspex.figures.agreement import predicted_and_exact

        return predicted_and_exact(self, quantity="effect of ablation")

    def to_dict(self) -> dict[str, Any]:
        """Both effects of each set, and how they agree, as plain numbers and lists."""
        return {
            "schema": self.schema,
            "terms": [list(term) for term in self.terms],
            "predicted": plain(self.predicted),
            "exact": plain(self.exact),
            "k": self.k,
            "correlation": plain(self.correlation),
            "rank_correlation": plain(self.rank_correlation),
            "same_sign": plain(self.same_sign),
            "recall": plain(self.recall),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Agreement:
        terms = tuple(read_term(stored) for stored in record["terms"])
        predicted, exact = (
            read_array(record[name], "term", rows=len(terms)) for name in ("predicted", "exact")
        )
        return cls(terms, predicted, exact, read_whole(record["k"]))

    def __str__(self) -> str:
        return self.in_short

    @property
    def in_short(self) -> str:
        """Correlations, signs and recall."""
        n_sets = len(self._finite[0])
        n_failed = len(self.terms) - n_sets
        failed = f" ({n_failed} more have no finite value)" if n_failed else ""
        return (
            f"on {n_sets} sets{failed}: rank correlation {self.rank_correlation:.2f}, "
            f"r {self.correlation:.2f}, same sign {self.same_sign:.0%}, "
            f"{self.recall:.0%} of the true top {self.k} among the predicted top {2 * self.k}"
        )


@door(value_function=as_values, n_terms=WHOLE, k=WHOLE, seed=SEED)
def agreement(
    proxy: ValuesLike | Candidates,
    value_function: ValuesLike,
    terms: Iterable[Sequence[int | str]] | None = None,
    *,
    n_terms: int = 60,
    k: int = 10,
    seed: int = 0,
) -> Agreement:
    """Hold a proxy against the full model on a sample of sets, measured exactly on both.

    Args:
        proxy: the candidates of a screen; or a cheaper value function of the same units: fewer
            prompts, ``bf16``, a smaller model, where units are words of a prompt.
        value_function: the full model.
        terms: the sets; if not given, a random sample of single units, or, of candidates, of the
            sets proposed.
        n_terms: how many are sampled.
        k: how many of the largest effects the recall counts.
        seed: the seed of the sample.

    Raises:
        Refused: proxy and value function with other units, or candidates without the `terms`.
    """
    value_function = as_value_function(value_function)
    proxy = proxy if isinstance(proxy, Candidates) else as_value_function(proxy)
    check_same_units("the proxy", proxy.units, "the value function", value_function.units)
    every = proxy.terms if isinstance(proxy, Candidates) else _singles(value_function)
    if terms is None:
        places = np.random.default_rng(seed).permutation(len(every))[:n_terms]
        terms = [every[place] for place in np.sort(places)]
    tested = validate(value_function, terms)
    if isinstance(proxy, Candidates):
        scores = dict(zip(proxy.terms, proxy.scores.tolist(), strict=True))
        unknown = [term for term in tested.terms if term not in scores]
        if unknown:
            raise Refused(f"the screen has no score for {proxy.units.label(unknown[0])}")
        predicted = np.array([scores[term] for term in tested.terms])
    else:
        predicted = validate(proxy, tested.terms).effects
    return Agreement(tested.terms, predicted, tested.effects, k)


def _singles(value_function: ValueFunction) -> tuple[Term, ...]:
    return tuple((column,) for column in range(value_function.n_units))


def _largest(effects: Float[np.ndarray, " term"], number: int) -> set[int]:
    return set(np.argsort(-np.abs(effects), kind="stable")[:number].tolist())
