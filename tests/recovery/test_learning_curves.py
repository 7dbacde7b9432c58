import numpy as np
import pytest
from figure_laws import check_readable

import mechspex as mx
from mechspex.errors import Refused, ShapeError
from mechspex.set_functions.r_squared import r_squared

MASKS = mx.sample_masks(24, 500, keep=0.7, seed=4)
NOISE = np.random.default_rng(1).normal(size=500)
VALUES = 1.0 * MASKS[:, 0] - MASKS[:, 3] + 2.0 * (MASKS[:, 1] & MASKS[:, 2]) + 0.3 * NOISE


def test_more_masks_predict_better_and_the_pair_is_beyond_the_additive_decoder():
    found = mx.learning_curves(MASKS, VALUES, sizes=[30, 100, 400])
    table = found.to_pandas().pivot(index="masks", columns="decoder", values="r2")
    assert table["pursuit"].is_monotonic_increasing
    # The rest is noise of variance .09, which no decoder predicts.
    assert table.loc[400, "pursuit"] == pytest.approx(1 - 0.09 / VALUES.var(), abs=0.03)
    assert table.loc[400, "additive"] < table.loc[400, "pursuit"] - 0.05
    assert found.n_test == 100
    figure = found.plot()
    check_readable(figure)
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    drawn = np.asarray(lines["pursuit"].get_xydata())
    assert drawn == pytest.approx(np.array(list(table["pursuit"].items())))


def test_the_held_out_masks_are_not_decoded():
    rng = np.random.default_rng(0)
    nonsense = rng.normal(size=len(MASKS))
    for _, _, r2 in mx.learning_curves(MASKS, nonsense, sizes=[400]).rows:
        assert r2.low < 0.1
        assert r2.value < 0.1


def test_a_mask_that_repeats_is_taken_once():
    twice = np.concatenate([MASKS, MASKS])
    found = mx.learning_curves(twice, np.concatenate([VALUES, VALUES]), sizes=[400])
    assert found == mx.learning_curves(MASKS, VALUES, sizes=[400])


def test_one_size_is_the_r2_of_decode_on_the_others():
    found = mx.learning_curves(MASKS, VALUES, decoders=["additive"], sizes=[200], n_test=300)
    ((name, n, r2),) = found.rows
    assert (name, n) == ("additive", 200)
    function = mx.decode(MASKS, VALUES, decoder="additive")
    assert r2.value == pytest.approx(r_squared(VALUES, function.predict(MASKS)), abs=0.05)


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(Refused, match="499 masks asked for, and 400"):
        mx.learning_curves(MASKS, VALUES, sizes=[499])
    with pytest.raises(Refused, match="leave none"):
        mx.learning_curves(MASKS, VALUES, n_test=500)
    with pytest.raises(ShapeError, match="500 masks and 3 values"):
        mx.learning_curves(MASKS, VALUES[:3])
    assert not mx.learning_curves(MASKS, VALUES, decoders=["pursuit"], sizes=[1]).rows
