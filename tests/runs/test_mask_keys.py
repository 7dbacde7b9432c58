"""Keys of masks: every mask has one of its own, and is read from it again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechspex.core.masks import single_ablations
from mechspex.core.units import parts
from mechspex.core.value_function import FunctionValues
from mechspex.errors import StoreError
from mechspex.runs.mask_keys import mask_keys, masks_of
from mechspex.runs.measured import measured_masks
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.store_file import VALUES
from mechspex.runs.store_tables import SCHEMA


@given(n_units=st.sampled_from([1, 8, 270, 2048, 2049, 3000]), seed=st.integers(0, 99))
def test_every_mask_has_a_key_of_its_own_and_comes_back(n_units, seed):
    rng = np.random.default_rng(seed)
    n_ablated = rng.integers(0, n_units + 1, size=12) // rng.integers(1, 200, size=12)
    masks = np.array([rng.permutation(n_units) >= n for n in n_ablated])
    for schema in (1, SCHEMA):
        keys = mask_keys(masks, schema)
        assert len(set(keys)) == len(np.unique(masks, axis=0))
        assert np.array_equal(masks_of(keys, n_units), masks)
        assert max(map(len, keys)) <= -(-n_units // 8)


def test_a_single_of_many_units_takes_four_bytes():
    keys = mask_keys(single_ablations(3000), SCHEMA)
    assert {len(key) for key in keys} == {4}
    assert {len(key) for key in mask_keys(single_ablations(2048), SCHEMA)} == {256}


@pytest.mark.parametrize("key", [b"\xff" * 4, b"\0" * 5, b"\0" * 400])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(StoreError, match="is that of no mask of 3000 units"):
        masks_of([key], 3000)


def test_a_store_of_many_units_is_small_and_is_read_again(tmp_path):
    def value(masks):
        return masks[:, :9].sum(1) - 2.0 * masks[:, 2999]

    value.configuration = {"function": "value"}  # pyright: ignore[reportFunctionMemberAccess]
    singles = single_ablations(3000)
    for n_measured in (3000, 0):
        values = RecordedValues(FunctionValues(value, parts(3000)), tmp_path)
        assert np.array_equal(values(singles)[:, 0], value(singles))
        values.close()
        assert values.measured == n_measured
    assert (tmp_path / VALUES).stat().st_size < 300_000, "packed bits alone are 1,125,000"
    masks, found = measured_masks(tmp_path, 3000, 1)
    assert np.array_equal(found[:, 0], value(masks))
    assert len(masks) == 3000
