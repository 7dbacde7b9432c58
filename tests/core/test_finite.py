"""Finite values: rows that have them, and the refusal."""

import numpy as np
import pytest

import mechspex as mx
from mechspex.core.finite import finite_rows, finite_values
from mechspex.core.masks import both_ends
from mechspex.errors import FailedMasksError


def test_a_row_is_finite_where_every_output_is():
    values = np.array([[1.0, 2.0], [np.nan, 2.0], [1.0, -np.inf]])
    assert finite_rows(values).tolist() == [True, False, False]
    assert finite_rows(values[:, 0]).tolist() == [True, False, True]
    assert finite_rows(values[:0]).tolist() == []
    assert finite_rows(values[:, :, None]).tolist() == [True, False, False]


def test_what_is_not_finite_is_refused():
    def function(masks):
        return np.where(masks.all(axis=1), 1.0, np.nan)

    values = mx.FunctionValues(function, mx.parts("abc"))
    whole = finite_values(values, both_ends(3)[:1])
    assert (whole.tolist(), whole.dtype) == ([[1.0]], np.float64)
    with pytest.raises(FailedMasksError, match="1 of 2 masks of mine have no finite value"):
        finite_values(values, both_ends(3), "masks of mine")
