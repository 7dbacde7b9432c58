"""The seam: one contract for every value function, its wrappers and classes of the user's own."""

import numpy as np
import pytest
from value_function_laws import check_gradient_laws, check_laws

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.core.restricted import RestrictedValues
from mechspex.core.units import parts
from mechspex.core.value_function import (
    FunctionValues,
    ValueFunction,
    as_value_function,
    configuration_of,
    in_own_dtype,
)
from mechspex.errors import Refused, ShapeError
from mechspex.runs.recorded import RecordedValues

N, WIDE = 6, 3


class Quadratic:
    """A class of somebody's own: of the seam's shape, derived from nothing of this package."""

    def __init__(self):
        rng = np.random.default_rng(3)
        self.units, self.n_units, self.outputs = parts(range(N)), N, ("a", "b", "c")
        self._pairs = rng.standard_normal((WIDE, N, N))
        self.gradients = 0

    def __call__(self, masks):
        soft = masks.astype(np.float64)
        return np.einsum("mi,oij,mj->mo", soft, self._pairs, soft).astype(np.float32)

    def value_and_gradient(self, masks):
        self.gradients += len(masks)
        both = self._pairs + self._pairs.transpose(0, 2, 1)
        slopes = np.einsum("oij,mj->moi", both, masks.astype(np.float64))
        return self(masks), slopes.astype(np.float32)


class Derived(ValueFunction):
    """The same as a subclass: it says nothing of gradients but has them."""

    def __init__(self):
        self._own = Quadratic()

    @property
    def units(self):
        return self._own.units

    @property
    def outputs(self):
        return self._own.outputs

    def __call__(self, masks):
        return self._own(masks)

    def value_and_gradient(self, masks):
        return self._own.value_and_gradient(masks)


def plain():
    """The same without gradients."""
    return FunctionValues(Quadratic(), parts(range(N)))


SEAMS = {
    "plain function": plain,
    "own class": lambda: as_value_function(Quadratic()),
    "subclass": Derived,
}
WRAPPERS = {
    "itself": lambda values: values,
    "restricted": lambda values: RestrictedValues(values, [4, 1, 2]),
    "recorded": lambda values: RecordedValues(values, None),
    "recorded twice": lambda values: RecordedValues(RecordedValues(values, None), None),
    "restricted, recorded": lambda values: RecordedValues(RestrictedValues(values, [5, 0]), None),
    "recorded, restricted": lambda values: RestrictedValues(RecordedValues(values, None), [5, 0]),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("seam", SEAMS)
def test_laws(seam, wrapper):
    values = WRAPPERS[wrapper](SEAMS[seam]())
    clean = Quadratic()(np.ones((1, N), dtype=bool))[0]
    check_laws(values, clean)
    assert values.differentiable == (seam != "plain function")
    check_gradient_laws(values)


def test_restricted_gradients_are_columns_of_the_whole():
    whole, columns = as_value_function(Quadratic()), [4, 1, 2]
    soft = np.random.default_rng(1).uniform(0, 1, (5, 3)).astype(np.float32)
    wide = np.ones((5, N), dtype=np.float32)
    wide[:, columns] = soft
    restricted = RestrictedValues(whole, columns)
    assert np.array_equal(
        restricted.value_and_gradient(soft)[1], whole.value_and_gradient(wide)[1][..., columns]
    )
    assert np.array_equal(
        restricted.value_and_mean_gradient(soft)[1],
        whole.value_and_mean_gradient(wide)[1][:, columns],
    )
    with pytest.raises(ShapeError, match=r"soft masks have shape \[5, 6\], expected \[mask, 3\]"):
        restricted.value_and_gradient(wide)


def test_recorded_mean_gradients_are_those_of_the_whole_and_measured_once(tmp_path):
    own, soft = Quadratic(), np.random.default_rng(1).uniform(0, 1, (20, N)).astype(np.float32)
    expected = own.value_and_gradient(soft)
    measured = 0
    for _ in range(2):
        own.gradients = 0
        values, gradients = RecordedValues(own, tmp_path).value_and_mean_gradient(soft)
        assert np.array_equal(values, expected[0])
        assert np.array_equal(gradients, expected[1].mean(axis=1))
        measured += own.gradients
    assert measured == 20


def test_recorded_values_are_screened_like_what_they_record(tmp_path):
    own = Quadratic()
    for method in ("first_order", "second_order"):
        direct = mx.screen(own, method)
        own.gradients = 0
        recorded = RecordedValues(own, tmp_path / method)
        through = mx.screen(recorded, method)
        assert through.terms == direct.terms
        assert np.array_equal(through.scores, direct.scores)
        assert own.gradients == recorded.gradients > 0
        own.gradients = 0
        mx.screen(RecordedValues(own, tmp_path / method), method)
        assert own.gradients == 0, "what was recorded is not measured again"
    with pytest.raises(Refused, match="has no value_and_gradient"):
        mx.screen(RecordedValues(plain(), None))


def test_a_search_for_a_circuit_climbs_on_restricted_units():
    """As it does on the whole: a value function that hid its gradients would not be asked."""
    own = Quadratic()
    own._pairs = np.abs(own._pairs)
    fresh = FunctionValues(own.__call__, own.units)
    columns = [0, 1, 2, 3, 4]
    mx.find_circuit(
        RestrictedValues(own, columns),
        RestrictedValues(fresh, columns),
        goal=mx.CircuitGoal(size=2),
        n_masks=50,
    )
    assert own.gradients > 0


def test_a_class_of_ones_own_keeps_what_it_says_of_itself():
    own = as_value_function(Quadratic())
    assert as_value_function(own) is own
    assert configuration_of(own)["function"].startswith("tests.core.test_value_function.Quadratic ")
    assert in_own_dtype(own) is own
    rough, exact = Quadratic(), Quadratic()
    rough.configuration, rough.in_own_dtype = {"model": "rough"}, exact  # pyright: ignore[reportAttributeAccessIssue]
    assert configuration_of(rough) == {"model": "rough"}
    masks = sample_masks(N, 3, seed=0)
    assert np.array_equal(in_own_dtype(rough)(masks), exact(masks))


def test_what_is_no_value_function_is_refused():
    for wrapper in (lambda v: RestrictedValues(v, [0]), lambda v: RecordedValues(v, None)):
        with pytest.raises(Refused, match="does not tell its units"):
            wrapper(lambda masks: masks)


def test_what_a_function_writes_into_its_masks_changes_no_answer(tmp_path):
    def overwrites(masks):
        values = 1.0 * masks[:, 0] + 3.0 * (masks[:, 1] & masks[:, 2])
        masks[:, 1] = True
        masks[:] = ~masks
        return values

    class Foreign:
        units, outputs = parts(4), ("a",)

        def __call__(self, masks):
            return overwrites(masks)[:, None]

    class Subclass(Derived):
        def __init__(self):
            self._own = Foreign()

        def __call__(self, masks):
            return overwrites(masks)[:, None]

    expected = {(0,): -1.0, (1,): -3.0, (2,): -3.0, (1, 2): 3.0}
    masks = sample_masks(4, 9)
    for number, values in enumerate((FunctionValues(overwrites, 4), Foreign(), Subclass())):
        found = mx.explain(values, run=tmp_path / str(number)).ablated_effects()
        assert {term: found[term] for term in found if term} == pytest.approx(expected)
        assert mx.sweep(values).effects.tolist() == [-1, -3, -3, 0]
        given = masks.copy()
        as_value_function(values)(given)
        assert isinstance(values, Subclass) or np.array_equal(given, masks)
