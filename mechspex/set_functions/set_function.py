"""Sparse set functions: a list of terms and coefficients in one named basis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.sparse import csr_array

from mechspex.core.errors import Refused, ShapeError
from mechspex.core.json_values import read_array, read_number, read_term, read_text, read_whole
from mechspex.core.masks import check_masks
from mechspex.core.result import Result
from mechspex.core.units import Term, by_order
from mechspex.set_functions.bases import Basis, affine, features
from mechspex.set_functions.indices import IndexKind, compute

if TYPE_CHECKING:
    import matplotlib.figure

SCHEMA = "mechspex.set_function/2"
# The older schema, coefficients as [term]; still read.
_ONE_OUTPUT = "mechspex.set_function/1"
# Rows that the text shows.
_SHOWN = 20
# Elements of one block of features: keeps prediction in tens of megabytes.
_BLOCK = 1 << 22
# A term of order k expands into 2^k; beyond this a change of basis is no longer sparse.
_LARGEST_ORDER = 20


@dataclass(frozen=True, eq=False, repr=False)
class SetFunction(Result):
    """A function of a mask, f(m) = Σ_S c_S φ_S(m), with few terms S.

    The bases are products of one affine factor a unit (m_i = 1 where unit i is kept):

    =============  ======================================  ==================================
    basis          φ_S(m)                                  what c_S says
    =============  ======================================  ==================================
    ``fourier``    ∏_{i∈S} (m_i − p)/√(p(1−p)), p=`keep`   c_S² is a share of the variance
    ``kept``       ∏_{i∈S} m_i                             one term for an AND
    ``ablated``    ∏_{i∈S} (1 − m_i)                       one term for an OR of backups
    =============  ======================================  ==================================

    A function may have several outputs (a value for each prompt). All outputs share the terms. Its
    `coefficients` and what it predicts are means over the outputs.

    >>> import mechspex as mx
    >>> both = mx.SetFunction.from_mapping(3, {(): 1.0, (0, 2): 4.0}, basis="kept")  # 1 + 4·m₀·m₂
    >>> both.predict(mx.single_ablations(3))
    array([1., 5., 1.])

    Attributes:
        n_units: the width of the masks.
        terms: sorted tuples of unit indices, without repetition; ``()`` is the constant.
        output_coefficients: one coefficient a term and output, in the units of the value. An array
            ``[term]`` holds the coefficients of a single output.
        basis: ``fourier``, ``kept`` or ``ablated``.
        keep: the probability p of the Fourier basis, and of the design that the function was
            recovered from.
        notes: the decoder's remarks on how it found the function.

    Raises:
        Refused: terms that repeat, are unsorted or lie outside the units; an unknown basis.
        ShapeError: another number of coefficients than of terms.
    """

    schema: ClassVar[str] = SCHEMA
    older_schemas: ClassVar[tuple[str, ...]] = (_ONE_OUTPUT,)
    called: ClassVar[str] = "set function"

    n_units: int
    terms: tuple[Term, ...]
    output_coefficients: Float[np.ndarray, "term ..."]
    basis: Basis
    keep: float = 0.5
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        coefficients = np.array(self.output_coefficients, dtype=np.float64)
        if coefficients.ndim not in (1, 2) or len(coefficients) != len(self.terms):
            raise ShapeError(
                f"coefficients of shape {list(coefficients.shape)} for {len(self.terms)} terms; "
                "give one coefficient a term, or one a term and output"
            )
        if coefficients.ndim == 1:
            coefficients = coefficients[:, None]
        coefficients.setflags(write=False)
        object.__setattr__(self, "output_coefficients", coefficients)
        affine(self.basis, self.keep)
        if len(set(self.terms)) != len(self.terms):
            raise Refused("a term is listed twice; add up its coefficients first")
        for term in self.terms:
            if any(a >= b for a, b in pairwise(term)):
                raise Refused(f"term {term} is not a sorted tuple of different units")
            if term and not 0 <= term[0] <= term[-1] < self.n_units:
                raise Refused(f"term {term} lies outside the units 0 … {self.n_units - 1}")

    @classmethod
    def from_mapping(
        cls,
        n_units: int,
        coefficients: Mapping[Term, float] | Mapping[Term, Float[np.ndarray, " output"]],
        *,
        basis: Basis,
        keep: float = 0.5,
        notes: tuple[str, ...] = (),
    ) -> SetFunction:
        """The set function with these coefficients; its terms are sorted by order, then by units.

        Args:
            n_units: the width of the masks.
            coefficients: {term: coefficient}. A coefficient is a number, or an array with one
                number an output.
            basis: the basis of the coefficients: ``fourier``, ``kept`` or ``ablated``.
            keep: the probability p of the Fourier basis.
            notes: remarks to keep with the function.
        """
        terms = tuple(sorted(coefficients, key=by_order))
        values = np.array([coefficients[term] for term in terms], dtype=np.float64)
        return cls(n_units, terms, values, basis, keep, notes)

    def __len__(self) -> int:
        return len(self.terms)

    def __getitem__(self, term: Iterable[int]) -> float:
        """The coefficient of a set of units, mean over outputs; 0 for a set that is no term."""
        return self.to_mapping().get(tuple(sorted(term)), 0.0)

    @cached_property
    def coefficients(self) -> Float[np.ndarray, " term"]:
        """One coefficient a term, in the units of the value: the mean over outputs."""
        return self.output_coefficients.mean(axis=1)

    @property
    def n_outputs(self) -> int:
        """How many outputs the function has."""
        return self.output_coefficients.shape[1]

    def output(self, number: int) -> SetFunction:
        """The function of one output alone, over the same terms.

        Args:
            number: the output's column, from 0.
        """
        return replace(self, output_coefficients=self.output_coefficients[:, number])

    def over(self, units: Sequence[int], n_units: int) -> SetFunction:
        """The same function of wider masks, which hold its units among others.

        Args:
            units: the columns of this function's units in the wider masks, ascending: its unit i
                is ``units[i]`` there.
            n_units: the width of the wider masks.
        """
        terms = tuple(tuple(units[i] for i in term) for term in self.terms)
        return replace(self, n_units=n_units, terms=terms)

    def to_mapping(self) -> dict[Term, float]:
        """{term: coefficient}, mean over outputs."""
        return dict(zip(self.terms, self.coefficients.tolist(), strict=True))

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis}, mean over outputs."""
        return self.to_basis("ablated").to_mapping()

    @property
    def max_order(self) -> int:
        """The size of the largest term; 0 for a constant."""
        return max(map(len, self.terms), default=0)

    def predict(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, " mask"]:
        """f(m) for every mask, mean over outputs, in the units of the value.

        Args:
            masks: True = kept.

        Raises:
            ShapeError: masks of another width or dtype.
        """
        return self._apply(masks, self.coefficients)

    def predict_outputs(
        self, masks: Bool[np.ndarray, "mask unit"]
    ) -> Float[np.ndarray, "mask output"]:
        """f(m) for every mask and output, in the units of the value.

        Args:
            masks: True = kept.

        Raises:
            ShapeError: masks of another width or dtype.
        """
        return self._apply(masks, self.output_coefficients)

    def _apply(
        self, masks: Bool[np.ndarray, "mask unit"], coefficients: Float[np.ndarray, "term ..."]
    ) -> Float[np.ndarray, "mask ..."]:
        masks = check_masks(masks, self.n_units)
        values = np.zeros((len(masks), *coefficients.shape[1:]))
        rows = max(1, _BLOCK // max(1, len(self.terms)))
        for start in range(0, len(masks), rows):
            block = masks[start : start + rows]
            values[start : start + rows] = (
                features(block, self.terms, basis=self.basis, keep=self.keep) @ coefficients
            )
        return values

    def to_basis(self, basis: Basis, keep: float | None = None) -> SetFunction:
        """The same function in another basis, exactly.

        Let a·m + b be the factor of this basis and a′·m + b′ the factor of the other. With
        α = a/a′ and β = b − α·b′, c′(T) = Σ_{S⊇T} c(S) α^{|T|} β^{|S|−|T|}. This one rule gives
        the two Möbius transforms, the Fourier transform and changes of p.

        >>> import mechspex as mx
        >>> both = mx.SetFunction.from_mapping(3, {(0, 2): 4.0}, basis="kept")  # an AND
        >>> both.to_basis("ablated").to_mapping()
        {(): 4.0, (0,): -4.0, (2,): -4.0, (0, 2): 4.0}

        Args:
            basis: ``fourier``, ``kept`` or ``ablated``.
            keep: the probability p of the Fourier basis; this function's own if not given.

        Raises:
            Refused: an unknown basis, or a term of an order above 20.
        """
        keep = self.keep if keep is None else keep
        slope, offset = affine(self.basis, self.keep)
        new_slope, new_offset = affine(basis, keep)
        alpha = slope / new_slope
        beta = offset - alpha * new_offset
        if self.max_order > _LARGEST_ORDER:
            raise Refused(
                f"a term of order {self.max_order} expands into 2^{self.max_order} terms; "
                f"change the basis of functions of order {_LARGEST_ORDER} or less"
            )
        if (alpha, beta) == (1.0, 0.0):
            return replace(self, basis=basis, keep=keep)
        # One row for every subset T met, one column a term S: the shares α^|T| β^(|S|−|T|).
        row_of: dict[Term, int] = {}
        rows, columns, shares = [], [], []
        for column, term in enumerate(self.terms):
            for size in range(len(term) + 1):
                subsets = [row_of.setdefault(t, len(row_of)) for t in combinations(term, size)]
                rows += subsets
                columns += [column] * len(subsets)
                shares += [alpha**size * beta ** (len(term) - size)] * len(subsets)
        matrix = csr_array((shares, (rows, columns)), shape=(len(row_of), len(self.terms)))
        terms = list(row_of)
        order = sorted(range(len(terms)), key=lambda row: (len(terms[row]), terms[row]))
        return SetFunction(
            self.n_units,
            tuple(terms[row] for row in order),
            (matrix @ self.output_coefficients)[order],
            basis,
            keep,
            self.notes,
        )

    def truncate(self, n_terms: int) -> SetFunction:
        """The function of the constant and its largest terms alone.

        With several outputs a term's size is the root of the summed squares of its coefficients.

        Args:
            n_terms: how many terms stay, the constant not counted.
        """
        size = np.linalg.norm(self.output_coefficients, axis=1)
        size[[not term for term in self.terms]] = np.inf
        n_kept = n_terms + int(() in self.terms)
        chosen = np.sort(np.argsort(-size, kind="stable")[:n_kept]).tolist()
        return replace(
            self,
            terms=tuple(self.terms[i] for i in chosen),
            output_coefficients=self.output_coefficients[chosen],
        )

    def indices(self, kind: IndexKind, order: int | None = None) -> dict[Term, float]:
        """An interaction index of every set of units, mean over outputs.

        The formulas stand in `mechspex.set_functions.indices`; they are those of Butler et al.
        2025 (ProxySPEX), appendix A.1.

        >>> import mechspex as mx
        >>> both = mx.SetFunction.from_mapping(3, {(0, 2): 4.0}, basis="kept")  # an AND
        >>> both.indices("shapley")
        {(0,): 2.0, (2,): 2.0}

        Args:
            kind: ``shapley``, ``banzhaf`` or ``influence`` score single units; ``moebius``,
                ``shapley_interaction`` or ``faith_banzhaf`` score sets.
            order: the size of the largest sets scored for ``shapley_interaction``, the order ℓ of
                the approximation for ``faith_banzhaf``; None for all other kinds.

        Returns:
            {set of units: index}; an absent set has the index 0. Indices are in the units of the
            value, ``influence`` in their square.

        Raises:
            Refused: an unknown kind, or an order where none is taken (or none where one is).
        """
        fourier = self.to_basis("fourier", 0.5).to_mapping()
        # ∏(−1)^{m_i} is (−1)^{|S|} times the Fourier factor 2m_i − 1 at p = ½.
        walsh = {term: value * (-1) ** len(term) for term, value in fourier.items()}
        return compute(kind, walsh, order)

    def to_shapiq(self, index: str = "k-SII", order: int = 2) -> Any:
        """An interaction index of the mean over outputs, as a `shapiq.InteractionValues`.

        All plots of shapiq work on it. It is exact for this function: nothing is sampled.

        Args:
            index: ``SV``, ``BV``, ``Moebius``, ``SII``, ``k-SII`` or ``FBII``. ``SV``, ``k-SII``
                and ``Moebius`` sum to f(all) − f(∅), as force and waterfall plots ask.
            order: the size of the largest sets, for ``SII``, ``k-SII`` and ``FBII``.

        Raises:
            Refused: shapiq is not installed, or it has no such index here.
        """
        from mechspex.set_functions.shapiq_values import interaction_values

        return interaction_values(self, index, order)

    def to_pandas(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """A frame with one row a term: ``units``, ``order``, ``coefficient``; largest first.

        Args:
            names: the name of each unit; its column number if not given.
        """
        label = str if names is None else names.__getitem__
        frame = pd.DataFrame(
            {
                "units": [" × ".join(map(label, term)) for term in self.terms],
                "order": [len(term) for term in self.terms],
                "coefficient": self.coefficients,
            }
        )
        largest_first = np.argsort(-np.abs(self.coefficients), kind="stable")
        return frame.iloc[largest_first].reset_index(drop=True)

    def plot(self, names: Sequence[str] | None = None) -> "matplotlib.figure.Figure":
        """The largest coefficients, as bars.

        Args:
            names: the name of each unit; its column number if not given.
        """
        from mechspex.figures.bars import bars

        terms = self.to_pandas(names).query("order > 0")
        return bars(
            terms["units"].tolist(),
            terms["coefficient"].to_numpy(),
            quantity=f"coefficient in the {self.basis} basis",
            heading="Largest terms of the recovered function",
        )

    @property
    def in_short(self) -> str:
        """How many terms over how many units, and the basis."""
        density = f" at p = {self.keep:g}" if self.basis == "fourier" else ""
        return f"{len(self)} terms over {self.n_units} units, basis {self.basis}{density}"

    def __str__(self) -> str:
        shown = self.to_pandas().head(_SHOWN)
        named = "units by their column; to_pandas(names) names them"
        lines = [self.in_short, named, shown.to_string(index=False, float_format="{:+.3f}".format)]
        if len(self) > _SHOWN:
            lines.append(f"… and {len(self) - _SHOWN:,} smaller ones")
        return "\n".join([*lines, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """The function as plain numbers and lists, with a schema name; JSON can hold it."""
        return {
            "schema": SCHEMA,
            "n_units": self.n_units,
            "basis": self.basis,
            "keep": self.keep,
            "notes": list(self.notes),
            "terms": [list(term) for term in self.terms],
            "coefficients": self.output_coefficients.tolist(),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> SetFunction:
        terms = tuple(read_term(stored) for stored in record["terms"])
        axes = ("term",) if record["schema"] == _ONE_OUTPUT else ("term", "output")
        return cls(
            n_units=read_whole(record["n_units"]),
            terms=terms,
            output_coefficients=read_array(record["coefficients"], *axes, rows=len(terms)),
            basis=record["basis"],
            keep=read_number(record["keep"]),
            notes=tuple(read_text(note) for note in record["notes"]),
        )
