"""The integer program whose answer is the best subset, with a proof (HiGHS through scipy)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from mechspex.core.units import Term
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.set_function import SetFunction

# Subsets of terms that a change of basis may write down, and variables that a program may have.
_LARGEST_EXPANSION = 200_000
_LARGEST_PROGRAM = 10_000
_LARGEST_ORDER = 20
# To how many digits of the largest |c| two relaxed bounds are compared.
_DIGITS = 6
# scipy: the solver reached the optimum; there is no solution.
_OPTIMAL = 0
_INFEASIBLE = 2
# A bound on a whole number this little above one is that number.
_WHOLE = 1e-6
# Terms below this share of Σ|c| are rounding of a change of basis.
_ROUNDING_OF_SUM = 1e-12


@dataclass(frozen=True)
class Solution:
    """What a program came to.

    Attributes:
        chosen: the best subset; None if the time ended before any was found.
        bound: no subset has a larger value.
    """

    chosen: Bool[np.ndarray, " unit"] | None
    bound: float


@dataclass(frozen=True, eq=False)
class SubsetProgram:
    """max Σ_T c_T y_T + Σ_i c_i x_i with y_T = ∏_{i∈T} x_i, x binary, as a linear program in x, y.

    A product needs one side of its linearisation (McCormick 1976; Glover and Woolsey 1974), the
    one that its coefficient presses on, and y is then a product wherever x is whole:

    * c_T > 0: y_T ≤ x_i for each i ∈ T;
    * c_T < 0: y_T ≥ Σ_{i∈T} x_i − |T| + 1, y_T ≥ 0.

    Attributes:
        function: the function f. In the kept basis x_i = 1 for a chosen unit; in the ablated
            basis x_i = 1 for every other unit.
        slack: Σ|c| of the terms left out as rounding; it is added to every bound.
    """

    function: SetFunction
    slack: float

    @classmethod
    def of(cls, function: SetFunction, size: int, time_limit: float) -> SubsetProgram | None:
        """The program in kept or ablated terms; None if both are out of reach.

        A basis is out of reach with more than 10,000 variables, or where the change of basis would
        write down more than 200,000 terms. Where both can be reached, the program with the lower
        relaxed bound has less to prove; at equal bounds the one with fewer terms is taken.

        Args:
            function: the function f, in any basis.
            size: the size at which the relaxed bounds are compared.
            time_limit: seconds; each of the two bounds may take a quarter of them.
        """
        reachable = []
        for basis in ("kept", "ablated"):
            converted = _converted(function, basis)
            if converted is not None:
                reachable.append(cls(*_without_rounding(converted)))
        if len(reachable) == 1:
            return reachable[0]
        unit = max((program._scale for program in reachable), default=1.0)

        def work(program: SubsetProgram) -> tuple[float, int]:
            relaxed = program.solve(size, whole=False, time_limit=time_limit / 4)
            return round(relaxed.bound / unit, _DIGITS), len(program.function)

        return min(reachable, key=work, default=None)

    def solve(
        self,
        size: int | None = None,
        *,
        price: float = 0.0,
        whole: bool = True,
        time_limit: float,
    ) -> Solution:
        """Maximise f(z) − price·|z| over subsets z.

        Args:
            size: how many units a subset has; None for subsets of all sizes.
            price: the price of one chosen unit, in the units of the value.
            whole: False for the relaxed program, x anywhere in [0, 1]: it gives a bound, no subset.
            time_limit: seconds; what is known by then is the answer.
        """
        n_units = self.function.n_units
        objective, constraints = self._objective, [self._products]
        of_others = self.function.basis == "ablated"
        paid = -price * n_units if of_others else 0.0
        scale = self._scale
        objective = objective.copy()
        objective[:n_units] += price if of_others else -price
        if size is not None:
            number = n_units - size if of_others else size
            units = (np.arange(len(objective)) < n_units)[None]
            constraints.append(LinearConstraint(csr_array(units.astype(float)), number, number))
        result = milp(
            -objective / scale,
            integrality=(np.arange(len(objective)) < n_units) * int(whole),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": time_limit, "mip_rel_gap": 0.0},
        )
        if whole:
            bound = result.mip_dual_bound
        else:
            bound = result.fun if result.status == _OPTIMAL else None
        bound = np.inf if bound is None else self.function[()] + paid + self.slack - bound * scale
        if not whole or result.x is None:
            return Solution(None, bound)
        return Solution((result.x[:n_units] > 0.5) ^ of_others, bound)

    def smallest(
        self, goal: float, *, excluding: Sequence[Term] = (), time_limit: float
    ) -> tuple[Bool[np.ndarray, " unit"] | None, int]:
        """Minimise |z| over subsets z with f(z) ≥ goal; the subset, and the least size proven.

        The products need no other side here: each still presses on f from below.

        Args:
            goal: the value to reach.
            excluding: subsets that do not count, by column.
            time_limit: seconds; what is known by then is the answer.

        Returns:
            The subset, None if none was found in time; and a size below which there is none,
            n + 1 where there is none at all.
        """
        n_units, scale = self.function.n_units, self._scale
        of_others = self.function.basis == "ablated"
        reached = (goal - self.function[()] - self.slack) / scale
        constraints = [
            self._products,
            LinearConstraint(csr_array(self._objective[None] / scale), reached, np.inf),
            *(self._another(term) for term in excluding),
        ]
        units = (np.arange(len(self._objective)) < n_units).astype(float)
        result = milp(
            -units if of_others else units,
            integrality=units,
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": time_limit, "mip_rel_gap": 0.0},
        )
        if result.status == _INFEASIBLE:
            return None, n_units + 1
        bound = -np.inf if result.mip_dual_bound is None else result.mip_dual_bound
        least = max(0.0, np.ceil(bound + of_others * n_units - _WHOLE))
        if result.x is None:
            return None, int(least)
        return (result.x[:n_units] > 0.5) ^ of_others, int(least)

    def _another(self, term: Term) -> LinearConstraint:
        """Any subset but this one: at least one unit differs."""
        n_units = self.function.n_units
        inside = np.isin(np.arange(n_units), term)
        chosen = inside ^ (self.function.basis == "ablated")
        row = np.zeros((1, len(self._objective)))
        row[0, :n_units] = np.where(chosen, -1.0, 1.0)
        return LinearConstraint(csr_array(row), 1.0 - chosen.sum(), np.inf)

    @cached_property
    def _products(self) -> LinearConstraint:
        rows, columns, entries, most = [], [], [], []
        for y, (term, coefficient) in enumerate(self._interactions, start=self.function.n_units):
            if coefficient > 0:
                for i in term:
                    rows += [len(most)] * 2
                    columns += [y, i]
                    entries += [1, -1]
                    most.append(0)
            else:
                rows += [len(most)] * (len(term) + 1)
                columns += [y, *term]
                entries += [-1] + [1] * len(term)
                most.append(len(term) - 1)
        shape = (len(most), len(self._objective))
        matrix = csr_array((entries, (rows, columns)), shape=shape)
        return LinearConstraint(matrix, -np.inf, np.array(most, dtype=float))  # type: ignore[arg-type]

    @cached_property
    def _interactions(self) -> list[tuple[Term, float]]:
        return [(t, c) for t, c in self.function.to_mapping().items() if len(t) > 1]

    @cached_property
    def _objective(self) -> Float[np.ndarray, " variable"]:
        """Coefficients of the units, then of the products."""
        singles = np.zeros(self.function.n_units)
        for term, coefficient in self.function.to_mapping().items():
            if len(term) == 1:
                singles[term[0]] = coefficient
        return np.concatenate([singles, [coefficient for _, coefficient in self._interactions]])

    @property
    def _scale(self) -> float:
        """The largest |c|: tolerances of the solver are absolute, so it sees coefficients ≤ 1."""
        return float(np.abs(self._objective).max(initial=0.0)) or 1.0


def _converted(function: SetFunction, basis: Basis) -> SetFunction | None:
    """The function in another basis; None if that is out of reach."""
    if function.basis != basis:
        if function.max_order > _LARGEST_ORDER:
            return None
        if sum(2 ** len(term) for term in function.terms) > _LARGEST_EXPANSION:
            return None
        function = function.to_basis(basis)
    return function if function.n_units + len(function) <= _LARGEST_PROGRAM else None


def _without_rounding(function: SetFunction) -> tuple[SetFunction, float]:
    """The function without terms that are rounding, and Σ|c| of those."""
    size = np.abs(function.coefficients)
    rounding = size <= _ROUNDING_OF_SUM * size.sum()
    kept = np.flatnonzero(~rounding)
    terms = tuple(function.terms[i] for i in kept)
    lean = replace(function, terms=terms, output_coefficients=function.coefficients[kept])
    return lean, float(size[rounding].sum())
