"""The structure of an answer: where the energy of a recovered function lies, and in what shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd

from mechspex.core.checks import Only
from mechspex.core.doors import door
from mechspex.core.errors import Refused, ShapeError
from mechspex.core.json_values import plain, read_number, read_whole
from mechspex.core.result import Result
from mechspex.set_functions.hierarchy import HierarchyRates, direct_subsets, hierarchy_of
from mechspex.set_functions.set_function import SetFunction

if TYPE_CHECKING:
    import matplotlib.figure

TermKind = Literal["single", "synergy", "redundancy", "neither"]
Form = Literal["kept", "ablated", "neither"]

# The R² that the largest terms of a form have to reach.
_HELD = 0.95
# A coefficient is rounding, not structure, below this share of the standard deviation of f, or
# below the second share of the largest coefficient, the constant included. A sum over direct
# subsets is 0 below the first share of the largest coefficient.
_ROUNDING_OF_SPREAD = 1e-9
_ROUNDING_OF_CONSTANT = 1e-12
# Numbers written down while a form is worked out; some seconds.
_LARGEST_WORK = 5_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Structure(Result):
    """How a set function is built: orders, layers, synergy and redundancy, hierarchy, form.

    Energies are squared fourier(p) coefficients, p the density of the design, as shares of the
    variance Var f = Σ_{S≠∅} F(S)²; the shares of interactions are of the energy of order ≥ 2.

    Each set S of order ≥ 2 is one of three kinds. Compare F(S) with Σ_{i∈S} F(S∖{i}), the sum
    over its direct subsets:

    * *synergy*: both have the same sign. Keeping all of S moves f further than the smaller sets
      predict. An AND is synergy.
    * *redundancy*: they have opposite signs. Keeping all of S moves f less far. An OR, a unit and
      its backup, is redundancy.
    * *neither*: the direct subsets do nothing or cancel, as in XOR.

    This holds at every order, whether f rises or falls with the units. The words are those of
    Butler et al. 2025, Figure 9; the sign rule is ours.

    Attributes:
        function: the function in the Fourier basis, without terms that are rounding and without
            the constant, largest term first.
        layers: the layer of each unit; None where units have none.
        variance: Var f under the design, in the square of the value's units.
        energy_by_order: shares of the variance of orders 1, 2, …; empty for a constant.
        within_layers, across_layers: shares of the energy of interactions whose units lie in one
            layer, and in several layers; None without layers, 0 without interactions.
        kinds: one kind a term of `function`.
        synergy, redundancy: shares of the energy of interactions; 0 without interactions.
        hierarchy: rates at k = 8, 16, … 256 and at the number of terms; empty for a constant.
        n_kept, n_ablated: how many terms of the kept, and of the ablated, basis reach R² ≥ 0.95
            under the design; the constant is free, and terms come in the order of their own
            variance c²·Var φ_S.
    """

    schema: ClassVar[str] = "mechspex.structure/1"
    called: ClassVar[str] = "structure"

    function: SetFunction
    layers: tuple[int, ...] | None
    variance: float
    energy_by_order: tuple[float, ...]
    within_layers: float | None
    across_layers: float | None
    kinds: tuple[TermKind, ...]
    synergy: float
    redundancy: float
    hierarchy: tuple[HierarchyRates, ...]
    n_kept: int
    n_ablated: int

    @property
    def shorter(self) -> Form:
        """The Möbius basis that needs fewer terms: kept for ANDs, ablated for backups.

        Near p = 1 the ablated basis starts out ahead, being an expansion around the whole model.
        """
        if self.n_kept == self.n_ablated:
            return "neither"
        return "kept" if self.n_kept < self.n_ablated else "ablated"

    @property
    def interaction_energy(self) -> float:
        """Share of the variance of order ≥ 2."""
        return sum(self.energy_by_order[1:], start=0.0)

    def to_pandas(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """A row a term, largest first: ``units``, ``order``, ``coefficient``, ``energy``, ``kind``.

        ``energy`` is a share of the variance. Where layers are known, ``layers`` comes last:
        ``within`` one layer (as every single is) or ``across`` several.

        Args:
            names: the name of each unit; its column number if not given.
        """
        labels = list(map(str, range(self.function.n_units))) if names is None else names
        terms = self.function.terms
        frame = pd.DataFrame(
            {
                "units": [" × ".join(labels[i] for i in term) for term in terms],
                "order": [len(term) for term in terms],
                "coefficient": self.function.coefficients,
                "energy": self.function.coefficients**2 / (self.variance or 1.0),
                "kind": list(self.kinds),
            }
        )
        layers = self.layers
        if layers is not None:
            within = [len({layers[i] for i in term}) == 1 for term in terms]
            frame["layers"] = ["within" if one else "across" for one in within]
        return frame

    def plot(self) -> "matplotlib.figure.Figure":
        """The share of the variance that lies in singles, pairs, triples …"""
        from mechspex.figures.orders import energy_by_order

        return energy_by_order(self)

    @property
    def summary(self) -> str:
        """One line: energy by order, what the interactions are, and the shorter basis."""
        shares = enumerate(self.energy_by_order, start=1)
        parts = ["energy by order " + ", ".join(f"{order}: {share:.3f}" for order, share in shares)]
        if self.interaction_energy:
            parts.append(
                f"interactions {self.synergy:.0%} synergy, {self.redundancy:.0%} redundancy"
            )
            if self.across_layers is not None:
                parts.append(f"{self.across_layers:.0%} across layers")
        parts.append(f"R² {_HELD} with {self.n_kept} kept or {self.n_ablated} ablated terms")
        return "; ".join(parts)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self._lines())

    @property
    def in_short(self) -> str:
        """`summary`, of a function that is no constant."""
        return self.summary if self.energy_by_order else "a constant, no energy to share out"

    def _tables(self) -> list[pd.DataFrame]:
        return [pd.DataFrame(self._lines(), columns=["part", "what it is"]), self.to_pandas()]

    def to_dict(self) -> dict[str, Any]:
        """Shares, rates and the function they are of, as plain numbers and lists."""
        return {
            "schema": self.schema,
            "function": self.function.to_dict(),
            "layers": None if self.layers is None else list(self.layers),
            "variance": self.variance,
            "energy_by_order": list(self.energy_by_order),
            "within_layers": self.within_layers,
            "across_layers": self.across_layers,
            "kinds": list(self.kinds),
            "synergy": self.synergy,
            "redundancy": self.redundancy,
            "hierarchy": [plain(asdict(rates)) for rates in self.hierarchy],
            "n_kept": self.n_kept,
            "n_ablated": self.n_ablated,
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> Structure:
        kinds: list[TermKind] = record["kinds"]
        if not set(kinds) <= set(get_args(TermKind)):
            raise ValueError(f"kinds {sorted(set(kinds))}")
        within, across = (
            None if record[name] is None else read_number(record[name])
            for name in ("within_layers", "across_layers")
        )
        layers = record["layers"]
        return cls(
            function=SetFunction.from_dict(record["function"]),
            layers=None if layers is None else tuple(read_whole(layer) for layer in layers),
            energy_by_order=tuple(read_number(share) for share in record["energy_by_order"]),
            within_layers=within,
            across_layers=across,
            kinds=tuple(kinds),
            hierarchy=tuple(HierarchyRates(**rates) for rates in record["hierarchy"]),
            **{name: read_number(record[name]) for name in ("variance", "synergy", "redundancy")},
            **{name: read_whole(record[name]) for name in ("n_kept", "n_ablated")},
        )

    def _lines(self) -> list[tuple[str, str]]:
        size = f"{len(self.function)} terms over {self.function.n_units} units"
        if not self.energy_by_order:
            return [("structure", f"{size}; a constant, no energy to share out")]
        shares = enumerate(self.energy_by_order, start=1)
        lines = [
            ("structure", f"{size}, p = {self.function.keep:g}"),
            ("energy by order", ", ".join(f"{order}: {share:.3f}" for order, share in shares)),
        ]
        if self.hierarchy[-1].n_interactions:
            neither = max(0.0, 1 - self.synergy - self.redundancy)
            parts = f"synergy {self.synergy:.2f}, redundancy {self.redundancy:.2f}, "
            parts += f"neither {neither:.2f}"
            if self.within_layers is not None:
                parts += (
                    f"; within layers {self.within_layers:.2f}, across {self.across_layers:.2f}"
                )
            rates = self.hierarchy[-1].among_interactions()
            lines += [
                ("energy of interactions", parts),
                (
                    f"hierarchy of {rates.k} interactions",
                    f"direct subsets {rates.direct_subset:.2f}, staircase {rates.staircase:.2f}, "
                    f"all subsets {rates.strong:.2f}",
                ),
            ]
        form = f"{self.n_kept} kept or {self.n_ablated} ablated; {self.shorter} is shorter"
        return [*lines, (f"terms for R² {_HELD}", form)]


@door(function=Only((SetFunction,), "a SetFunction, such as an explanation's function"))
def structure_of(function: SetFunction, layers: Sequence[int] | None = None) -> Structure:
    """Say how a set function (the mean over its outputs) is built; exact, nothing is sampled.

    >>> import mechspex as mx
    >>> backup = mx.SetFunction.from_mapping(4, {(1, 3): -2.0}, basis="ablated")  # an OR
    >>> print(mx.structure_of(backup))
    structure: 3 terms over 4 units, p = 0.5
    energy by order: 1: 0.667, 2: 0.333
    energy of interactions: synergy 0.00, redundancy 1.00, neither 0.00
    hierarchy of 1 interactions: direct subsets 1.00, staircase 1.00, all subsets 1.00
    terms for R² 0.95: 3 kept or 1 ablated; ablated is shorter

    Args:
        function: the function, in any basis; its `keep` is the density p.
        layers: the layer of each unit, if units have one.

    Raises:
        ShapeError: another number of layers than of units.
        Refused: terms of so high an order that their other bases cannot be written down.
    """
    if layers is not None and len(layers) != function.n_units:
        raise ShapeError(
            f"{len(layers)} layers for a function of {function.n_units} units; give one layer a "
            "unit, or None"
        )
    _check_work(function)
    fourier = _largest_first(function.to_basis("fourier"))
    energy = fourier.coefficients**2
    variance = float(energy.sum())
    orders = np.array([len(term) for term in fourier.terms], dtype=int)
    kinds = _kinds(fourier)

    def share(chosen: list[bool], of: float) -> float:
        return float(energy[np.array(chosen, dtype=bool)].sum()) / of if of else 0.0

    interacting = float(energy[orders > 1].sum())
    within = across = None
    if layers is not None:
        spread = [len({layers[i] for i in term}) if len(term) > 1 else 0 for term in fourier.terms]
        within = share([n == 1 for n in spread], interacting)
        across = share([n > 1 for n in spread], interacting)
    return Structure(
        function=fourier,
        layers=None if layers is None else tuple(layers),
        variance=variance,
        energy_by_order=tuple(
            share((orders == order).tolist(), variance)
            for order in range(1, max(orders, default=0) + 1)
        ),
        within_layers=within,
        across_layers=across,
        kinds=kinds,
        synergy=share([kind == "synergy" for kind in kinds], interacting),
        redundancy=share([kind == "redundancy" for kind in kinds], interacting),
        hierarchy=hierarchy_of(fourier.terms),
        n_kept=_length(fourier, "kept"),
        n_ablated=_length(fourier, "ablated"),
    )


def _check_work(function: SetFunction) -> None:
    """Σ_S 3^|S| bounds the subsets of subsets that a change of form visits; so does 3^n."""
    work = min(sum(3 ** len(term) for term in function.terms), 3**function.n_units)
    if work > _LARGEST_WORK:
        raise Refused(
            f"{len(function)} terms of order up to {function.max_order} have {work:.2g} subsets of "
            f"subsets, more than {_LARGEST_WORK:,}; truncate() the function to fewer terms first"
        )


def _largest_first(fourier: SetFunction) -> SetFunction:
    """The terms that are more than rounding, without the constant, the largest first."""
    coefficients = fourier.coefficients
    size = np.abs(coefficients) * [bool(term) for term in fourier.terms]
    # A change of basis leaves rounding of the size of the constant too.
    floor = max(
        _ROUNDING_OF_SPREAD * float(np.linalg.norm(size)),
        _ROUNDING_OF_CONSTANT * float(np.abs(coefficients).max(initial=0.0)),
    )
    chosen = [i for i in np.argsort(-size, kind="stable").tolist() if size[i] > floor]
    return SetFunction(
        fourier.n_units,
        tuple(fourier.terms[i] for i in chosen),
        coefficients[chosen],
        "fourier",
        fourier.keep,
        fourier.notes,
    )


def _kinds(fourier: SetFunction) -> tuple[TermKind, ...]:
    coefficients = dict(zip(fourier.terms, fourier.coefficients.tolist(), strict=True))
    floor = _ROUNDING_OF_SPREAD * max(map(abs, coefficients.values()), default=0.0)
    kinds: list[TermKind] = []
    for term, coefficient in coefficients.items():
        if len(term) == 1:
            kinds.append("single")
            continue
        smaller = sum(coefficients.get(subset, 0.0) for subset in direct_subsets(term))
        if abs(smaller) <= floor:
            kinds.append("neither")
        else:
            kinds.append("synergy" if smaller * coefficient > 0 else "redundancy")
    return tuple(kinds)


def _length(fourier: SetFunction, basis: Literal["kept", "ablated"]) -> int:
    """The fewest terms of a Möbius basis, in the order of their own variance, with R² ≥ 0.95.

    With z_i the Fourier factor, m_i = p + σ·z_i and 1 − m_i = q − σ·z_i. So a product over S adds
    σ^|T|·p^{|S|−|T|} (or (−σ)^|T|·q^{|S|−|T|}) to every T ⊆ S, and the energy of the rest follows
    term by term.
    """
    p = fourier.keep
    on = p if basis == "kept" else 1 - p
    sigma = math.sqrt(p * (1 - p)) * (1 if basis == "kept" else -1)
    rest = dict(zip(fourier.terms, fourier.coefficients.tolist(), strict=True))
    energy = sum(c * c for c in rest.values())
    allowed = (1 - _HELD) * energy
    form = fourier.to_basis(basis)
    own = [
        c * c * on ** len(term) * (1 - on ** len(term))
        for term, c in zip(form.terms, form.coefficients.tolist(), strict=True)
    ]
    n_terms = 0
    for index in np.argsort(-np.array(own), kind="stable").tolist():
        if energy <= allowed:
            break
        term, coefficient = form.terms[index], float(form.coefficients[index])
        for size in range(1, len(term) + 1):
            part = coefficient * sigma**size * on ** (len(term) - size)
            for subset in combinations(term, size):
                before = rest.get(subset, 0.0)
                rest[subset] = before - part
                energy += part * (part - 2 * before)
        n_terms += 1
    return n_terms
