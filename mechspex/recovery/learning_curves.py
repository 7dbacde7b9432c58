"""How well each decoder predicts fresh masks, from more and more masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechspex.core.checks import SEED, Several, Whole
from mechspex.core.doors import door
from mechspex.core.errors import BudgetError, Refused, ShapeError
from mechspex.core.json_values import read_estimate, read_text, read_whole
from mechspex.core.masks import Stream
from mechspex.core.result import Result
from mechspex.core.statistics import Estimate
from mechspex.decoders import decode
from mechspex.set_functions.r_squared import r2_interval, r_squared

if TYPE_CHECKING:
    import matplotlib.figure

# Masks that are held out, if not told: this share of all.
_HELD_OUT = 0.2


@dataclass(frozen=True, eq=False, repr=False)
class LearningCurves(Result):
    """R² of decoders on the same held-out masks, from growing numbers of masks.

    Attributes:
        rows: decoder, how many masks it was given, and its R² with a 95% interval over the held-out
            masks; by decoder, then by masks. Numbers too small for a decoder are left out.
        n_test: how many masks were held out.
    """

    schema: ClassVar[str] = "mechspex.learning_curves/1"
    called: ClassVar[str] = "learning curves"

    rows: tuple[tuple[str, int, Estimate], ...]
    n_test: int

    def to_pandas(self) -> pd.DataFrame:
        """A row a decoder and number of masks: decoder, masks, r2, low, high."""
        rows = [(name, n, r2.value, r2.low, r2.high) for name, n, r2 in self.rows]
        return pd.DataFrame(rows, columns=["decoder", "masks", "r2", "low", "high"])

    def plot(self) -> "matplotlib.figure.Figure":
        """R² against masks, a line a decoder; the additive one is dashed."""
        from mechspex.figures.learning import r2_by_masks

        return r2_by_masks(self)

    def to_dict(self) -> dict[str, Any]:
        """The scores as plain numbers and lists, with a schema name."""
        rows = [[name, n, r2.to_list()] for name, n, r2 in self.rows]
        return {"schema": self.schema, "rows": rows, "n_test": self.n_test}

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> LearningCurves:
        rows = tuple((read_text(d), read_whole(n), read_estimate(e)) for d, n, e in record["rows"])
        return cls(rows, read_whole(record["n_test"]))

    @property
    def in_short(self) -> str:
        """The best decoder with all masks."""
        if not self.rows:
            return "no decoder had enough masks"
        most = max(n for _, n, _ in self.rows)
        name, _, r2 = max((r for r in self.rows if r[1] == most), key=lambda row: row[2].value)
        return f"best from {most:,} masks: {name}, R² {r2} on {self.n_test:,} fresh ones"

    def __str__(self) -> str:
        table = self.to_pandas().to_string(index=False, float_format="{:.3f}".format)
        return f"{self.in_short}\n{table}"


@door(
    sizes=Several(Whole(1), "whole numbers of masks"),
    n_test=Whole(2),
    seed=SEED,
)
def learning_curves(
    masks: Bool[np.ndarray, "mask unit"] | np.ndarray,
    values: Float[np.ndarray, " mask *output"] | np.ndarray,
    *,
    decoders: Iterable[str] = ("additive", "pursuit"),
    sizes: Sequence[int] | None = None,
    n_test: int | None = None,
    seed: int = 0,
) -> LearningCurves:
    """Decode growing parts of the same masks, and score each answer on masks held out of all.

    R² is that of the mean over outputs, its interval over the held-out masks. A mask that occurs
    several times is taken once.

    >>> import mechspex as mx
    >>> masks = mx.sample_masks(8, 400, keep=0.5)
    >>> values = 1.0 * masks[:, 0] + 2.0 * (masks[:, 1] & masks[:, 2])
    >>> curves = mx.learning_curves(masks, values, sizes=[40, 160])
    >>> [(name, n, round(r2.value, 2)) for name, n, r2 in curves.rows if n == 160]
    [('additive', 160, 0.68), ('pursuit', 160, 1.0)]

    Args:
        masks: ``[mask, unit]``, True = kept.
        values: one a mask, or one a mask and output.
        decoders: names of `mechspex.decoders.DECODERS`.
        sizes: how many masks are decoded; doubled from an eighth of them if not given.
        n_test: how many masks are held out; a fifth if not given.
        seed: the only source of randomness: which masks are held out, and the decoders.

    Raises:
        ShapeError: another number of values than of masks.
        Refused: more masks asked for than there are, or an unknown decoder.
    """
    if len(masks) != len(values):
        raise ShapeError(f"{len(masks)} masks and {len(values)} values; give one value a mask")
    # A mask that is decoded cannot test what was decoded from it.
    different = np.sort(np.unique(masks, axis=0, return_index=True)[1])
    masks, values = masks[different], values[different]
    n_test = max(2, int(_HELD_OUT * len(masks))) if n_test is None else n_test
    n_train = len(masks) - n_test
    if n_train < 1:
        raise Refused(f"{n_test} of {len(masks)} masks held out leave none; hold out fewer")
    sizes = [n_train // 8, n_train // 4, n_train // 2, n_train] if sizes is None else sizes
    chosen = sorted({size for size in sizes if size})
    if chosen[-1] > n_train:
        raise Refused(f"{chosen[-1]} masks asked for, and {n_train} are there beside the held-out")
    order = np.random.default_rng((seed, Stream.HELD_OUT)).permutation(len(masks))
    test, train = order[:n_test], order[n_test:]
    truth = np.asarray(values, dtype=float).reshape(len(values), -1).mean(axis=1)[test]
    rows = []
    for name in decoders:
        for size in chosen:
            part = train[:size]
            try:
                found = decode(masks[part], values[part], decoder=name, seed=seed)
            except BudgetError:
                continue
            predicted = found.predict(masks[test])
            low, high = r2_interval(truth, predicted)
            rows.append((name, size, Estimate(r_squared(truth, predicted), low, high)))
    return LearningCurves(tuple(rows), n_test)
