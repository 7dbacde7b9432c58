import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechspex.core import masks as m
from mechspex.errors import Refused, ShapeError

sizes = st.integers(1, 40)


@pytest.mark.parametrize("design", ["biased", "mixed", "stratified"])
def test_a_longer_draw_begins_with_the_shorter_one(design):
    short = m.sample_masks(30, 20, keep=0.8, design=design, seed=3)
    long = m.sample_masks(30, 50, keep=0.8, design=design, seed=3)
    assert np.array_equal(long[:20], short)
    assert not np.array_equal(m.sample_masks(30, 20, keep=0.8, design=design, seed=4), short)


def test_blocks_do_not_change_the_draw(monkeypatch):
    whole = m.sample_masks(1000, 30, keep=0.9, seed=1)
    monkeypatch.setattr(m, "_BLOCK", 2000)
    assert np.array_equal(m.sample_masks(1000, 30, keep=0.9, seed=1), whole)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_units_are_kept_independently_with_probability_keep(keep):
    drawn = m.sample_masks(20, 20_000, keep=keep, seed=0)
    sigma = np.sqrt(keep * (1 - keep) / 20_000)
    assert np.abs(drawn.mean(0) - keep).max() < 5 * sigma
    correlation = np.corrcoef(drawn.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_paired_masks_are_complements():
    drawn = m.sample_masks(10, 7, design="paired", seed=0)
    assert drawn.shape == (7, 10)
    assert np.array_equal(drawn[0:6:2], ~drawn[1:6:2])


def test_mixed_masks_alternate_between_keep_and_a_half():
    drawn = m.sample_masks(20, 20_001, keep=0.9, design="mixed", seed=0)
    assert drawn.shape == (20_001, 20)
    for rows, share in ((drawn[::2], 0.9), (drawn[1::2], 0.5)):
        assert np.abs(rows.mean(0) - share).max() < 5 * np.sqrt(share * (1 - share) / 10_000)
    assert abs(np.corrcoef(drawn[:-1:2, 0], drawn[1::2, 0])[0, 1]) < 0.05


def test_stratified_masks_meet_every_density_equally_often():
    drawn = m.sample_masks(50, 200, keep=0.9, design="stratified", seed=0)
    counts = np.bincount((~drawn).sum(1))
    assert counts.tolist() == [0] + [20] * 10


def test_singles_and_pairs():
    assert np.array_equal((~m.single_ablations(4)).astype(int), np.eye(4))
    pairs = m.pair_ablations(5, among=[4, 1, 2])
    assert [np.flatnonzero(~row).tolist() for row in pairs] == [[1, 2], [1, 4], [2, 4]]
    assert len(m.pair_ablations(5)) == 10


def test_a_set_is_kept_alone_and_both_ends():
    assert m.keep_only(4, [(), (1, 3), range(4)]).tolist() == [
        [False] * 4, [False, True, False, True], [True] * 4,
    ]  # fmt: skip
    assert m.both_ends(3).tolist() == [[True] * 3, [False] * 3]


def test_factorial_masks_hold_all_settings_in_the_given_context():
    context = np.array([True, False, True, True])
    rows = m.factorial_masks(context, (0, 3))
    assert rows[:, [0, 3]].tolist() == [[False, False], [True, False], [False, True], [True, True]]
    assert (rows[:, [1, 2]] == context[[1, 2]]).all()


def test_all_masks_are_all_different():
    assert len(np.unique(m.all_masks(6), axis=0)) == 64
    with pytest.raises(Refused, match="25"):
        m.all_masks(25)


@given(st.integers(0, 5), sizes, st.integers(0, 2**32 - 1))
def test_packing_is_lossless(n_masks, n_units, seed):
    drawn = m.sample_masks(n_units, n_masks, seed=seed)
    packed = m.pack(drawn)
    assert packed.shape == (n_masks, -(-n_units // 8))
    assert np.array_equal(m.unpack(packed, n_units), drawn)


def test_bad_input_is_refused_with_its_value():
    with pytest.raises(Refused, match="n_units = 0"):
        m.sample_masks(0, 3)
    with pytest.raises(Refused, match="keep = 1"):
        m.sample_masks(3, 3, keep=1.0)
    with pytest.raises(Refused, match="n_masks = -1"):
        m.sample_masks(3, -1)
    with pytest.raises(Refused, match="paired"):
        m.sample_masks(3, 4, keep=0.9, design="paired")
    with pytest.raises(ShapeError, match=r"\[2, 3\], expected \[mask, 4\]"):
        m.check_masks(np.ones((2, 3), dtype=bool), 4)
    with pytest.raises(ShapeError, match="dtype int64, expected bool"):
        m.check_masks(np.ones((2, 3), dtype=np.int64), 3)
    with pytest.raises(ShapeError, match="got list"):
        m.check_masks([[True]], 1)
    with pytest.raises(ShapeError, match=r"\[2, 1\].*\[mask, 2\]"):
        m.unpack(np.zeros((2, 1), dtype=np.uint8), 9)


def test_streams_keep_their_numbers():
    """Values of every run made before rest on them."""
    numbers = {name: int(stream) for name, stream in m.Stream.__members__.items()}
    assert numbers.items() >= {
        "HELD_OUT": 1, "PROBES": 1, "AROUND_SUBSETS": 1, "OUTPUTS": 1, "REJECTED": 2,
        "RESAMPLES": 2, "RANDOM_SUBSETS": 2, "SURVIVORS": 3, "HALF": 3, "AMONG_OTHERS": 4,
        "HALVES": 4,
    }.items()  # fmt: skip
    named, bare = (m.sample_masks(30, 9, seed=(7, k)) for k in (m.Stream.HELD_OUT, 1))
    assert np.array_equal(named, bare)
