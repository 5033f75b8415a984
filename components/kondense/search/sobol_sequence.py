"""Points of a scrambled Sobol sequence by their number, without importing SciPy, whose statistics take 65 MiB.

Legend: D dimensions, B bits of a point's coordinates.

Source: Joe and Kuo 2008 (direction numbers, from SciPy's file of them), Bratley and Fox 1988 (recurrence), Matousek
1998 (scrambling). The points are those of `scipy.stats.qmc.Sobol` with the same generator.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BITS = 30  # SciPy's default
NUMBERS = Path("stats") / "_sobol_direction_numbers.npz"  # in SciPy's folder: polynomials and initial numbers

Integers = NDArray[np.int64]


class Sequence:
    """A scrambled Sobol sequence of `dimensions` in [0, 1)."""

    def __init__(self, dimensions: int, rng: np.random.Generator) -> None:
        rng = rng.spawn(1)[0]  # as SciPy does
        weights = 1 << np.arange(BITS)
        self._shift: Integers = rng.integers(2, size=(dimensions, BITS), dtype=np.uint32).astype(np.int64) @ weights
        lower = np.tril(rng.integers(2, size=(dimensions, BITS, BITS), dtype=np.uint32)).astype(np.int64)
        lower[:, np.arange(BITS), np.arange(BITS)] = 1
        self._directions = _scrambled(_directions(dimensions), lower)

    def point(self, number: int) -> NDArray[np.float64]:
        """Return point `number`, counted from 0, [D]."""
        gray = number ^ (number >> 1)
        columns = [bit for bit in range(gray.bit_length()) if gray >> bit & 1]
        whole = np.bitwise_xor.reduce(self._directions[:, columns], axis=1) ^ self._shift
        return np.asarray(whole / 2.0**BITS, dtype=np.float64)


def _scrambled(directions: Integers, lower: Integers) -> Integers:
    """Return direction numbers multiplied by lower triangular matrices of bits, [D, B]."""
    places = np.arange(BITS - 1, -1, -1)
    bits = directions[:, :, np.newaxis] >> places & 1  # the most significant first
    product = np.einsum("dpk,djk->djp", lower, bits) % 2
    return np.asarray(product @ (1 << places), dtype=np.int64)


@functools.lru_cache(maxsize=4)
def _directions(dimensions: int) -> Integers:
    """Return the direction numbers, [D, B], each with its leading bit at the top."""
    found = importlib.util.find_spec("scipy")
    assert found is not None and found.origin is not None, "the package depends on SciPy"
    with np.load(Path(found.origin).parent / NUMBERS) as stored:
        polynomials, initial = stored["poly"][:dimensions].tolist(), stored["vinit"][:dimensions].tolist()
    rows = [[1] * BITS]
    for polynomial, first in zip(polynomials[1:], initial[1:], strict=True):
        degree = polynomial.bit_length() - 1
        row = first[:degree]
        for _ in range(degree, BITS):
            value = row[-degree]
            for step in range(1, degree + 1):
                if polynomial >> (degree - step) & 1:
                    value ^= row[-step] << step
            row.append(value)
        rows.append(row[:BITS])
    return np.array(rows, dtype=np.int64) << np.arange(BITS - 1, -1, -1)
