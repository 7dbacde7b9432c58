from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest

from mechspex.decoders.spex.bch import BchCode
from mechspex.errors import Refused, ShapeError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import galois

COMPARED = [(11, 3), (64, 5), (100, 4)]
SIZES = [(4, 1), (11, 3), (30, 5), (64, 2), (64, 5), (270, 5), (1024, 3)]


def parities_of(code: BchCode, units: list[int]) -> np.ndarray:
    return np.bitwise_xor.reduce(code.parities[units], axis=0) if units else no_parities(code)


def no_parities(code: BchCode) -> np.ndarray:
    return np.zeros(code.n_parities, dtype=bool)


def units_of(code: BchCode, row: np.ndarray) -> list[int]:
    return [unit for unit in row.tolist() if unit < code.n_units]


@cache
def oracle(code: BchCode) -> galois.BCH:
    """The same code of full length, over the same field; shortened when it is used."""
    degree = (code.n_units + code.n_parities).bit_length()
    field = galois.GF(
        2**degree,
        irreducible_poly=code._field.polynomial,
        verify=False,
        compile="python-calculate",  # or every field is compiled, for seconds
    )
    length = 2**degree - 1
    return galois.BCH(length, length - code.n_parities, extension_field=field, alpha=field(2))


@pytest.mark.parametrize(("n_units", "n_errors"), COMPARED)
def test_parities_are_those_of_galois(n_units: int, n_errors: int):
    code = BchCode(n_units, n_errors)
    reference = oracle(code)
    words = np.random.default_rng(0).random((50, n_units)) < 0.3
    # The highest power comes first in galois.
    shortened = galois.GF(2)(words[:, ::-1].astype(np.uint8))
    expected = np.asarray(reference.encode(shortened, output="parity"))[:, ::-1]
    ours = words.astype(int) @ code.parities.astype(int) % 2
    assert np.array_equal(ours, expected)


@pytest.mark.parametrize(("n_units", "n_errors"), COMPARED)
def test_decoding_agrees_with_galois(n_units: int, n_errors: int):
    code = BchCode(n_units, n_errors)
    reference = oracle(code)
    assert reference.t == n_errors
    rng = np.random.default_rng(1)
    received = np.array([parities_of(code, rng.permutation(n_units)[:w].tolist())
                         for w in rng.integers(0, n_errors + 2, 100)])  # fmt: skip
    received ^= rng.random(received.shape) < 1 / code.n_parities
    sets, found = code.decode(received)
    words = np.hstack([np.zeros((100, n_units), dtype=np.uint8), received[:, ::-1]])
    decoded, n_corrected = reference.decode(
        galois.GF(2)(words.astype(np.uint8)), output="codeword", errors=True
    )
    assert np.array_equal(found, np.asarray(n_corrected) >= 0)
    for row, word in zip(sets[found], np.asarray(decoded)[found], strict=True):
        assert units_of(code, row) == np.flatnonzero(word[:n_units][::-1]).tolist()


@pytest.mark.parametrize(("n_units", "n_errors"), [*SIZES, (2, 5), (46_080, 5)])
def test_every_pattern_of_up_to_t_errors_is_corrected(n_units: int, n_errors: int):
    code = BchCode(n_units, n_errors)
    rng = np.random.default_rng(2)
    planted, received = [], []
    for _ in range(300 if n_units < 5000 else 20):
        units = sorted(rng.permutation(n_units)[: rng.integers(n_errors + 1)].tolist())
        bits = parities_of(code, units).copy()
        wrong = rng.permutation(code.n_parities)[: rng.integers(n_errors - len(units) + 1)]
        bits[wrong] ^= True
        planted.append(units)
        received.append(bits)
    sets, found = code.decode(np.array(received))
    assert found.all()
    assert [units_of(code, row) for row in sets] == planted


def test_what_is_found_is_within_t_errors_and_nothing_within_t_is_missed():
    code = BchCode(9, 2)
    # Every word within two errors of the code, by brute force: 2^9 sets of units and all errors.
    near = {}
    for mask in range(2**9):
        units = [i for i in range(9) if mask >> i & 1]
        if len(units) > 2:
            continue
        wrongs = [[], *([j] for j in range(code.n_parities))] if len(units) < 2 else [[]]
        if not units:
            wrongs += [[i, j] for j in range(code.n_parities) for i in range(j)]
        for wrong in wrongs:
            bits = parities_of(code, units).copy()
            bits[wrong] ^= True
            assert near.setdefault(bits.tobytes(), units) == units
    every = (np.arange(2**code.n_parities)[:, None] >> np.arange(code.n_parities) & 1).astype(bool)
    sets, found = code.decode(every)
    for bits, row, ok in zip(every, sets, found, strict=True):
        assert ok == (bits.tobytes() in near)
        if ok:
            assert units_of(code, row) == near[bits.tobytes()]


def test_parities_of_a_hundred_thousand_units_need_no_generator_matrix():
    code = BchCode(100_000, 5)
    assert code.n_parities == 5 * 17
    assert code.parities.nbytes == 100_000 * 85
    assert len(np.unique(np.packbits(code.parities, axis=1), axis=0)) == 100_000


def test_wrong_sizes_are_refused():
    with pytest.raises(Refused, match="at least one unit"):
        BchCode(0, 5)
    with pytest.raises(Refused, match=r"GF\(2\^20\)"):
        BchCode(2**20, 5)
    with pytest.raises(ShapeError, match=r"\[call, 55\]"):
        BchCode(1024, 5).decode(np.zeros((3, 54), dtype=bool))
