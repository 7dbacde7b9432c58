"""BCH codes over GF(2^m): few parities of a small set, from which the set is found again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from mechspex.core.errors import Refused, ShapeError

# One primitive polynomial of every degree, bit i being the coefficient of x^i.
_PRIMITIVE = {
    2: 0x7, 3: 0xB, 4: 0x13, 5: 0x25, 6: 0x43, 7: 0x83, 8: 0x11D, 9: 0x211, 10: 0x409, 11: 0x805,
    12: 0x1053, 13: 0x201B, 14: 0x402B, 15: 0x8003, 16: 0x1002D, 17: 0x20009, 18: 0x40027,
    19: 0x80027, 20: 0x100009,
}  # fmt: skip
# Elements of one block of the root search: tens of megabytes.
_BLOCK = 1 << 21


@dataclass(frozen=True)
class BchCode:
    """The primitive narrow-sense binary BCH code, shortened to `n_units` information bits.

    A set k of units is an information word: bit j of the word is the coefficient of x^{P+j}. Its P
    parities are the remainder mod g(x), where g is the least polynomial over F₂ with roots
    α, α³, …, α^{2t−1} in GF(2^m), and m is the smallest with n + P ≤ 2^m − 1.

    Take the parities of k with up to t − |k| of them wrong. They are the code word 0 with errors at
    k and at the wrong parities, so decoding 0 finds k (Lin & Costello 2004, sections 6.1 and 6.2).

    Attributes:
        n_units: the number n of information bits.
        n_errors: the number t of errors that are corrected.

    Raises:
        Refused: a size below 1, or a code beyond GF(2^20).
    """

    n_units: int
    n_errors: int

    def __post_init__(self) -> None:
        if self.n_units < 1 or self.n_errors < 1:
            raise Refused(
                f"n_units = {self.n_units}, n_errors = {self.n_errors}: a code needs at least one "
                "unit and corrects at least one error"
            )
        if self.n_units + self.n_errors * max(_PRIMITIVE) >= 2 ** max(_PRIMITIVE):
            raise Refused(
                f"n_units = {self.n_units}, n_errors = {self.n_errors}: this code lies beyond "
                f"GF(2^{max(_PRIMITIVE)}); use fewer units or correct fewer errors"
            )

    @property
    def n_parities(self) -> int:
        """The number P of parities, which is the degree of g; at most t·m."""
        return self._generator.bit_length() - 1

    @cached_property
    def parities(self) -> Bool[np.ndarray, "unit parity"]:
        """Row i: the parities of unit i, x^{P+i} mod g(x); those of a set are their sum mod 2."""
        n_parities, generator = self.n_parities, self._generator
        remainder = generator ^ 1 << n_parities
        width = -(-n_parities // 8)
        rows = bytearray()
        for _ in range(self.n_units):
            rows += remainder.to_bytes(width, "little")
            remainder <<= 1
            if remainder >> n_parities:
                remainder ^= generator
        packed = np.frombuffer(rows, dtype=np.uint8).reshape(self.n_units, width)
        return np.unpackbits(packed, axis=1, count=n_parities, bitorder="little").astype(bool)

    def decode(
        self, received: Bool[np.ndarray, "call parity"]
    ) -> tuple[Int[np.ndarray, "call error"], Bool[np.ndarray, " call"]]:
        """The set of units that explains each row of parities, with at most t errors in all.

        Three steps, each for all calls at once: the syndromes, Berlekamp–Massey, and a search for
        the roots of those locators that have as many roots as their degree.

        Args:
            received: a row of parities a call, some of them wrong.

        Returns:
            The units ``[call, t]`` in ascending order, then `n_units` as a filler; and whether
            there is such a set, ``[call]``.

        Raises:
            ShapeError: another number of parities.
        """
        if received.ndim != 2 or received.shape[1] != self.n_parities:
            raise ShapeError(
                f"received bits of shape {list(received.shape)}; this code has {self.n_parities} "
                f"parities, give [call, {self.n_parities}]"
            )
        locators, lengths = self._locators(self._syndromes(received))
        sets = np.full((len(received), self.n_errors), self.n_units)
        decoded = lengths == 0
        for length in range(1, self.n_errors + 1):
            calls = np.flatnonzero(lengths == length)
            # The roots of x^L Λ(1/x) are the locations; monic, and without its leading 1.
            monic = self._field.divide(locators[calls, length:0:-1], locators[calls, :1])
            splits = self._field.splits(monic)
            calls, monic = calls[splits], monic[splits]
            rows, places = self._roots(monic)
            decoded[calls[rows]] = True
            units = np.where(places < self.n_parities, self.n_units, places - self.n_parities)
            sets[calls[rows], :length] = np.sort(units, axis=1)
        return sets, decoded

    @cached_property
    def _field(self) -> _Field:
        return self._field_and_generator[0]

    @cached_property
    def _generator(self) -> int:
        return self._field_and_generator[1]

    @cached_property
    def _field_and_generator(self) -> tuple[_Field, int]:
        for degree in range(2, max(_PRIMITIVE) + 1):
            if self.n_units + degree < 2**degree:
                field = _Field.of_degree(degree)
                generator = field.polynomial_with_roots(range(1, 2 * self.n_errors, 2))
                if self.n_units + generator.bit_length() - 1 < 2**degree:
                    return field, generator
        raise AssertionError("__post_init__ bounds the size of the code")

    @cached_property
    def _syndrome_bits(self) -> np.ndarray:
        """[parity, t × m]: the bits of α^{j·place} for odd j, whose sums are the syndromes."""
        odd = np.arange(1, 2 * self.n_errors, 2)
        powers = self._field.power(np.arange(self.n_parities)[:, None] * odd)
        bits = powers[:, :, None] >> np.arange(self._field.degree) & 1
        return bits.reshape(self.n_parities, -1).astype(np.float32)

    def _syndromes(self, received: np.ndarray) -> np.ndarray:
        """[call, 2t]: column j is S_j = r(α^j); column 0 is not used."""
        sums = (received.astype(np.float32) @ self._syndrome_bits).astype(np.int32) & 1
        sums = sums.reshape(len(received), self.n_errors, self._field.degree)
        syndromes = np.zeros((len(received), 2 * self.n_errors), dtype=np.int32)
        syndromes[:, 1::2] = sums @ (1 << np.arange(self._field.degree, dtype=np.int32))
        for j in range(2, 2 * self.n_errors, 2):
            half = syndromes[:, j // 2]
            syndromes[:, j] = self._field.multiply(half, half)
        return syndromes

    def _locators(self, syndromes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Berlekamp–Massey without inversion; binary, so every second discrepancy is 0.

        Returns:
            The coefficients ``[call, t + 1]`` of Λ, up to a factor, and its degree ``[call]``; the
            degree is −1 where the syndromes have no locator of degree t or less.
        """
        t, multiply = self.n_errors, self._field.multiply
        n_calls = len(syndromes)
        locator = np.zeros((n_calls, t + 1), dtype=np.int32)
        locator[:, 0] = 1
        previous = np.zeros_like(locator)
        previous[:, 1] = 1
        scale = np.ones((n_calls, 1), dtype=np.int32)
        length = np.zeros((n_calls, 1), dtype=np.int32)
        for step in range(t):
            j = 2 * step + 1
            reach = min(t, 2 * step) + 1
            past = syndromes[:, j - reach + 1 : j + 1][:, ::-1]
            products = multiply(locator[:, :reach], past)
            discrepancy = np.bitwise_xor.reduce(products, axis=1, keepdims=True)
            grows = (discrepancy != 0) & (length <= step)
            kept = np.where(grows, locator, previous)
            locator = multiply(scale, locator) ^ multiply(discrepancy, previous)
            previous = np.zeros_like(kept)
            previous[:, 2:] = kept[:, :-2]
            scale = np.where(grows, discrepancy, scale)
            length = np.where(grows, j - length, length)
        leading = np.take_along_axis(locator, np.minimum(length, t), axis=1)
        fits = (length <= t) & (leading != 0)
        return locator, np.where(fits, length, -1)[:, 0]

    def _roots(self, monic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows whose roots all lie at places of the shortened code, and those places."""
        n_calls, length = monic.shape
        if length == 1:
            places = self._field.log(monic)
            rows = np.flatnonzero(places[:, 0] < self.n_units + self.n_parities)
            return rows, places[rows]
        everywhere = np.arange(self.n_units + self.n_parities)
        powers = [self._field.power(everywhere * e) for e in range(length + 1)]
        all_rows, all_places = [np.empty(0, dtype=int)], [np.empty((0, length), dtype=int)]
        block = max(1, _BLOCK // len(everywhere))
        for start in range(0, n_calls, block):
            part = monic[start : start + block]
            value = np.repeat(powers[length][None, :], len(part), axis=0)
            for e in range(length):
                value ^= self._field.multiply(part[:, e, None], powers[e])
            is_root = value == 0
            rows = np.flatnonzero(is_root.sum(axis=1) == length)
            all_rows.append(start + rows)
            all_places.append(np.nonzero(is_root[rows])[1].reshape(-1, length))
        return np.concatenate(all_rows), np.concatenate(all_places)


@dataclass(frozen=True, eq=False)
class _Field:
    """GF(2^m) by tables of powers and logarithms of a primitive element α."""

    degree: int
    polynomial: int  # primitive, α being a root
    _powers: np.ndarray  # two periods, then zeros: where the logarithm of 0 leads
    _logs: np.ndarray

    @classmethod
    def of_degree(cls, degree: int) -> _Field:
        period = 2**degree - 1
        powers = np.zeros(4 * period + 1, dtype=np.int32)
        logs = np.full(2**degree, 2 * period, dtype=np.int32)
        element = 1
        one_period = []
        for _ in range(period):
            one_period.append(element)
            element <<= 1
            if element >> degree:
                element ^= _PRIMITIVE[degree]
        powers[:period] = powers[period : 2 * period] = one_period
        logs[one_period] = np.arange(period)
        return cls(degree, _PRIMITIVE[degree], powers, logs)

    def power(self, exponents: np.ndarray) -> np.ndarray:
        """α^e."""
        return self._powers[exponents % (2**self.degree - 1)]

    def log(self, elements: np.ndarray) -> np.ndarray:
        """e with α^e the element, which is not 0."""
        return self._logs[elements]

    def multiply(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._powers[self._logs[a] + self._logs[b]]

    def divide(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """a / b, b not 0."""
        return self._powers[self._logs[a] + (2**self.degree - 1 - self._logs[b])]

    def polynomial_with_roots(self, exponents: range) -> int:
        """The least polynomial over F₂ with roots α^e, bit i the coefficient of x^i."""
        period = 2**self.degree - 1
        conjugates = {(e << i) % period for e in exponents for i in range(self.degree)}
        coefficients = np.array([1], dtype=np.int32)
        for root in self.power(np.array(sorted(conjugates)))[:, None]:
            shifted = np.concatenate([[0], coefficients])
            scaled = self.multiply(coefficients, root)
            coefficients = shifted ^ np.concatenate([scaled, [0]])
        return sum(1 << i for i in np.flatnonzero(coefficients).tolist())

    def splits(self, monic: np.ndarray) -> np.ndarray:
        """Whether x^L + Σ_e c_e x^e has L different roots: it then divides x^{2^m} − x.

        Of random polynomials only one in L! does, so few are left for the search of roots.
        """
        n_calls, length = monic.shape
        if length == 1:
            return np.ones(n_calls, dtype=bool)
        # residues[e] = x^e modulo the polynomial.
        residues = [np.zeros_like(monic) for _ in range(length)]
        for e, residue in enumerate(residues):
            residue[:, e] = 1
        residues.append(monic)
        while len(residues) < 2 * length:
            last = residues[-1]
            shifted = np.zeros_like(last)
            shifted[:, 1:] = last[:, :-1]
            residues.append(shifted ^ self.multiply(last[:, -1:], monic))
        x = residues[1]
        frobenius = x
        for _ in range(self.degree):
            squares = self.multiply(frobenius, frobenius)
            frobenius = np.zeros_like(x)
            for e in range(length):
                frobenius ^= self.multiply(squares[:, e : e + 1], residues[2 * e])
        return (frobenius == x).all(axis=1)
