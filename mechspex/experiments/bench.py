"""The bench: every decoder and screen against models whose circuits are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from tqdm.auto import tqdm

from mechspex.components.component_values import ComponentValues
from mechspex.core.errors import BudgetError, Refused
from mechspex.core.masks import all_masks
from mechspex.core.units import UnitSet
from mechspex.decoders import DECODERS, compare, decode
from mechspex.decoders.decoder import check_samples
from mechspex.decoders.spex.design import SpexDesign
from mechspex.explanation.explain import explain
from mechspex.runs.recorded import RecordedValues
from mechspex.screening.methods import MethodName, find_method
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.set_function import SetFunction
from mechspex.truth import KNOWN_MODELS, KnownModel, known_model
from mechspex.truth.brute_force import coefficients, exact_terms, term_of

# The largest order that is scored.
ORDERS = (1, 2, 3, 4)
# A set is a term, of the truth or of an answer, if its coefficient for any output exceeds this
# share of the largest spread of values. An approximate answer is not held to its last digit; the
# coefficient error says how near it is.
COUNTED = 0.01
SCREENS: tuple[MethodName, ...] = ("first_order", "second_order")
ABLATIONS = ("zero", "resample")
# Masks that decoders are given, where there are more in all.
N_MASKS = (32, 128, 512)


@dataclass(frozen=True)
class RecoveryScore:
    """How an answer compares with the truth.

    Attributes:
        precision, recall, f1: the scores of the terms of orders 1 … 4; 1 where neither the truth
            nor the answer has such terms.
        f1_by_order: the F1 of each of these orders; NaN where neither has terms of the order.
        error: ‖ĉ − c‖ / ‖c‖ over all outputs and all terms but the constant.
    """

    precision: float
    recall: float
    f1: float
    f1_by_order: tuple[float, ...]
    error: float

    @classmethod
    def of(
        cls,
        answer: Float[np.ndarray, "term output"],
        true: Float[np.ndarray, "term output"],
        threshold: float,
    ) -> RecoveryScore:
        """Compare coefficients of all sets of units, in the order of `coefficients`.

        Args:
            answer: the coefficients of the answer.
            true: the coefficients of the truth.
            threshold: a set is a term if its coefficient for any output exceeds this.
        """
        order = np.array([row.bit_count() for row in range(len(true))])
        in_truth, in_answer = (np.abs(c).max(axis=1) > threshold for c in (true, answer))
        by_order = tuple(_f1(in_answer[order == k], in_truth[order == k]) for k in ORDERS)
        scored = np.isin(order, ORDERS)
        in_truth, in_answer = in_truth & scored, in_answer & scored
        in_both = in_truth & in_answer
        size = float(np.linalg.norm(true[1:]))
        distance = float(np.linalg.norm(answer[1:] - true[1:]))
        f1 = _f1(in_answer, in_truth)
        return cls(
            precision=_share(in_both, in_answer),
            recall=_share(in_both, in_truth),
            f1=1.0 if np.isnan(f1) else f1,
            f1_by_order=by_order,
            error=distance / size if size else float(distance > 0),
        )


def _share(part: Bool[np.ndarray, " term"], whole: Bool[np.ndarray, " term"]) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 1.0


def _f1(in_answer: Bool[np.ndarray, " term"], in_truth: Bool[np.ndarray, " term"]) -> float:
    total = int(in_answer.sum() + in_truth.sum())
    return 2 * int((in_answer & in_truth).sum()) / total if total else float("nan")


class _Table:
    """A value function whose values are all known: a lookup in the table of all masks."""

    def __init__(
        self, units: UnitSet, outputs: tuple[str, ...], values: Float[np.ndarray, "mask output"]
    ) -> None:
        self.units, self.outputs, self.values = units, outputs, values

    @property
    def n_units(self) -> int:
        return len(self.units)

    def __call__(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        return self.values[masks @ (1 << np.arange(self.n_units))]


def bench(
    models: Iterable[str | KnownModel] | None = None,
    *,
    ablations: Iterable[str] = ABLATIONS,
    decoders: Iterable[str] | None = None,
    screens: Iterable[MethodName] = SCREENS,
    n_masks: Iterable[int] = N_MASKS,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """RecoveryScore decoders and screens on models whose circuits are known.

    The truth is measured by brute force for each ablation, since it differs between them. Answers
    are compared with it in the basis in which it has the fewest terms. Decoders get random
    different masks, ``exhaustive`` all of them, ``spex`` those of its own design; ``automatic``
    also gets all 2^n, as ``mx.explain`` measures them. Screens predict the mean over outputs,
    so they are compared with its exact singles and pairs in the ``ablated`` basis.

    Args:
        models: names of `KNOWN_MODELS`, or known models of your own; all names if not given.
        ablations: the ablations, of ``zero``, ``resample`` and ``mean``.
        decoders: names of decoders; all if not given.
        screens: the screens, of ``first_order`` and ``second_order``.
        n_masks: how many masks a decoder gets. 2^n and more are left out; if none is
            below, it gets all 2^n masks.
        seed: the seed of the masks, the decoders and the resampled prompts.
        progress: whether a progress bar is shown on stderr.

    Returns:
        A frame, one row a model, ablation, method and number of masks: ``model``, ``ablation``,
        ``units`` (how many), ``basis``, ``terms`` (how many true ones of each order), ``method``,
        ``chose`` (what ``automatic`` took), ``masks`` (gradients, for a screen), ``precision``,
        ``recall``, ``f1``, ``f1_1`` … ``f1_4``, ``error``, ``refused`` (why there is no answer).

    Raises:
        Refused: an unknown model, decoder or ablation, or fewer masks than 1.
    """
    known = [known_model(m) if isinstance(m, str) else m for m in models or KNOWN_MODELS]
    chosen = list(DECODERS if decoders is None else decoders)
    for name in chosen:
        if name not in DECODERS:
            raise Refused(f"decoder {name!r}: choose {', '.join(DECODERS)}")
    sizes = sorted(n_masks)
    if not sizes or sizes[0] < 1:
        raise Refused(f"n_masks = {sizes}: give whole numbers from 1 up")
    chosen_screens = list(screens)
    for screen_name in chosen_screens:
        if screen_name not in SCREENS:
            raise Refused(f"screen {screen_name!r}: choose {', '.join(SCREENS)}")
    cells = list(product(known, ablations))
    rows: list[dict[str, Any]] = []
    for model, ablation in tqdm(cells, disable=not progress, unit="model"):
        values = model.values(ablation, seed=seed)
        table = _Table(values.units, values.outputs, values(all_masks(values.n_units)))
        cell = _Cell(table, seed)
        answers = [*cell.decoded(chosen, sizes), *cell.screened(values, chosen_screens)]
        rows += [{"model": model.name, "ablation": ablation} | answer for answer in answers]
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a model and ablation, as a summary of `bench`.

    It holds the truth, how well ``automatic`` recovers it from all masks, and the F1 of every
    method with the most masks below 2^n; NaN where a method refuses.

    Args:
        frame: what `bench` returned.
    """
    cell = ["model", "ablation", "units"]
    by_itself = (frame["method"] == "automatic") & (frame["masks"] == 2 ** frame["units"])
    table: pd.DataFrame = frame.loc[
        by_itself, [*cell, "basis", "terms", "chose", "masks", "f1", "error"]
    ]
    others: pd.DataFrame = frame.loc[~by_itself, [*cell, "method", "masks", "f1"]]
    most = others.sort_values(by="masks", kind="stable").groupby([*cell, "method"]).tail(1)
    for method in sorted(set(most["method"])):
        f1: pd.DataFrame = most.loc[most["method"] == method, [*cell, "f1"]]
        name = "automatic below" if method == "automatic" else method
        table = table.merge(f1.rename(columns={"f1": name}), on=cell, how="left")
    return table


class _Cell:
    """One model under one ablation."""

    def __init__(self, table: _Table, seed: int) -> None:
        self.table, self.seed = table, seed
        self.masks = all_masks(table.n_units)
        self.basis: Basis = exact_terms(table.values).basis
        self.true = coefficients(table.values, self.basis)
        self.threshold = _threshold(table.values)

    def decoded(self, decoders: Sequence[str], asked: Sequence[int]) -> Iterator[dict[str, Any]]:
        """A row for each decoder and number of masks."""
        n_all = len(self.masks)
        below = [size for size in asked if size < n_all] or [n_all]
        for name in decoders:
            if DECODERS[name].needs_design:
                sizes = {n_all}  # a part of these masks is of no use
            elif name == "automatic":
                sizes = {*below, n_all}
            else:
                sizes = set(below)
            for size in sorted(sizes):
                try:
                    answer, n_masks, chose = self._decode(name, size)
                except BudgetError as error:
                    yield self._row(name, size, refused=str(error))
                    continue
                recovered = coefficients(answer.predict_outputs(self.masks), self.basis)
                score = RecoveryScore.of(recovered, self.true, self.threshold)
                yield self._row(name, n_masks, score, chose=chose)

    def _decode(self, name: str, n_masks: int) -> tuple[SetFunction, int, str]:
        """The answer, the number of different masks it rests on, and what was chosen."""
        n_all = len(self.masks)
        if name == "automatic" and n_masks == n_all:
            explained = explain(self.table, n_masks=n_all, seed=self.seed)
            return explained.recovery.function, n_all, explained.settings["decoder"]
        if name == "spex":
            return self._decode_spex()
        rows = np.random.default_rng((self.seed, n_all)).permutation(n_all)[:n_masks]
        masks, values = self.masks[rows], self.table.values[rows]
        options: dict[str, Any] = {"keep": 0.5, "seed": self.seed}
        decoder, chose = DECODERS[name], ""
        if name == "automatic":
            decoder.check_budget(check_samples(masks, values, max_order=None, **options))
            decoder = compare(masks, values, **options).chosen
            chose = decoder.name
        return decode(masks, values, decoder=decoder, **options), n_masks, chose

    def _decode_spex(self) -> tuple[SetFunction, int, str]:
        n_units, n_all = self.table.n_units, len(self.masks)
        needed = SpexDesign.minimum_masks(n_units)
        if needed > n_all:
            raise BudgetError(f"{needed} masks of SPEX's design are more than all {n_all}")
        design = SpexDesign(n_units, needed, seed=self.seed)
        answer = decode(
            design.masks, self.table(design.masks), decoder="spex", design=design, seed=self.seed
        )
        return answer, len(np.unique(design.masks, axis=0)), ""

    def screened(
        self, values: ComponentValues, screens: Iterable[MethodName]
    ) -> Iterator[dict[str, Any]]:
        """A row for each screen."""
        mean = self.table.values.mean(axis=1, keepdims=True, dtype=np.float64)
        exact = coefficients(mean, "ablated")
        sets = [term_of(row) for row in range(len(exact))]
        place = {term: row for row, term in enumerate(sets)}
        for name in screens:
            order = SCREENS.index(name) + 1
            of_order = np.array([len(term) == order for term in sets])
            true = np.where(of_order[:, None], exact, 0)
            # Where no unit matters alone, as in an OR, the right answer is to propose nothing.
            recorded = RecordedValues(values, None)
            proposed = find_method(name).scored(recorded, int(of_order.sum()), self.seed)
            predicted = np.zeros_like(true)
            for term, score in zip(proposed.terms, proposed.scores, strict=True):
                predicted[place[term]] = score
            score = RecoveryScore.of(predicted, true, self.threshold)
            row = self._row(f"screen {name}", recorded.used, score)
            yield row | {"basis": "ablated", "terms": _counts(true, self.threshold)}

    def _row(
        self, method: str, n_masks: int, score: RecoveryScore | None = None, *, chose: str = "",
        refused: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        nothing = float("nan")
        by_order = (nothing,) * len(ORDERS) if score is None else score.f1_by_order
        return {
            "units": self.table.n_units,
            "basis": self.basis,
            "terms": _counts(self.true, self.threshold),
            "method": method,
            "chose": chose,
            "masks": n_masks,
            "precision": nothing if score is None else score.precision,
            "recall": nothing if score is None else score.recall,
            "f1": nothing if score is None else score.f1,
            **{f"f1_{order}": f1 for order, f1 in zip(ORDERS, by_order, strict=True)},
            "error": nothing if score is None else score.error,
            "refused": refused,
        }


def _threshold(values: Float[np.ndarray, "mask output"]) -> float:
    return COUNTED * float(np.ptp(values, axis=0).max())


def _counts(true: Float[np.ndarray, "term output"], threshold: float) -> str:
    """How many terms of order 1, 2, …: ``0 0 0 1``."""
    terms = np.flatnonzero(np.abs(true[1:]).max(axis=1) > threshold) + 1
    counts = np.bincount([row.bit_count() for row in terms.tolist()], minlength=2)
    return " ".join(map(str, counts[1:]))
