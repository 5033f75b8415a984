"""Coding of the values of a matrix of integers, given the magnitude of their row and the adjacent values.

The weights of adjacent pixels and of adjacent places of a kernel are correlated. Shapes: R rows, C columns; P columns
of a pass; K symbols; N values.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.codec.layout import Layout, octaves
from kondense.codec.models import Frequencies, peaked
from kondense.codec.neighbours import MOST_COLUMNS, ONE_LINE, Pass, passes
from kondense.codec.streams import Floats, Integers, Stream
from kondense.files import ArtifactError

Matrix = NDArray[np.int16]
CONTEXTS = 5  # of the sum of neighbours: large or small, negative or positive, and zero
UNKNOWN = 2  # the context without neighbours
BLOCK = 2**20  # maximum number of elements coded together
LONGEST_LINE = 64  # that the encoder considers
SAMPLE_ROWS = 128  # on which lines are detected,
SAMPLE = 2**18  # or fewer, of so many elements
LEAST_CORRELATION = 0.1  # of a line


def code_values(
    stream: Stream, layout: Layout, places_RC: NDArray[np.bool_], level_R: Integers, matrix_RC: Matrix | None
) -> Matrix:
    """Code the values at ``places_RC`` (see ``Stream``).

    Args:
        stream: a Writer, a Meter or a Reader.
        layout: of the matrix.
        places_RC: the places of values.
        level_R: the magnitude level of each row.
        matrix_RC: the matrix when writing, None when reading.
    """
    if layout.skips_zero and layout.high - layout.low == 1:  # one value
        return np.multiply(places_RC, layout.low or layout.high, dtype=np.int16)
    padded_RC = np.zeros((layout.rows, layout.columns + 1), np.int16)  # the last column is for missing neighbours
    frequencies: dict[tuple[int, int], Frequencies] = {}  # by magnitude level and context
    for part in passes(layout.columns, layout.line):
        for level, rows_B in _blocks(level_R, layout.columns):
            block_BC = padded_RC[rows_B]
            places_BP = places_RC[rows_B][:, part.columns]
            known_BP = None if matrix_RC is None else matrix_RC[rows_B][:, part.columns]
            coded_BP = np.zeros(places_BP.shape, np.int16)
            for context, chosen_BP in _by_context(layout, part, block_BC, places_BP):
                key = (level, context)
                if key not in frequencies:
                    frequencies[key] = Frequencies(_prior(layout, level))
                # Indices take less time than a mask, and all of them none.
                chosen_N = ... if chosen_BP.all() else np.flatnonzero(chosen_BP)
                count = chosen_BP.size if chosen_N is ... else len(chosen_N)
                known_N = None if known_BP is None else _symbols(layout, known_BP.reshape(-1)[chosen_N])
                coded_BP.reshape(-1)[chosen_N] = _values(layout, frequencies[key].code(stream, count, known_N))
            block_BC[:, part.columns] = coded_BP
            padded_RC[rows_B] = block_BC
    return padded_RC[:, :-1]


def _blocks(level_R: Integers, columns: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each magnitude level with the rows to code together."""
    count = max(1, BLOCK // max(1, columns))
    for level in np.unique(level_R).tolist():
        rows = np.flatnonzero(level_R == level)
        for start in range(0, len(rows), count):
            yield level, rows[start : start + count]


def _by_context(
    layout: Layout, part: Pass, block_BC: Matrix, places_BP: NDArray[np.bool_]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield each context of the neighbours in a pass that has values, and their places."""
    if part.neighbours is None:
        contexts = [(UNKNOWN, places_BP)]
    else:
        sums_BP = part.sums(block_BC)
        large = max(1, max(layout.high, -layout.low) // 3)
        context_BP = (UNKNOWN + np.sign(sums_BP) * (1 + (np.abs(sums_BP) > large))).astype(np.int8)
        contexts = [(context, places_BP & (context_BP == context)) for context in range(CONTEXTS)]
    yield from ((context, chosen_BP) for context, chosen_BP in contexts if chosen_BP.any())


def likeliest_line(matrix_RC: NDArray[Any]) -> int:
    """Return the estimated line length of the images in a row, or 0 for none.

    The autocorrelation peaks at a lag of one line; in a single line, it is high at lag 1.
    """
    columns = matrix_RC.shape[1]
    rows = min(SAMPLE_ROWS, max(1, SAMPLE // max(1, columns)))
    sample_RC = matrix_RC[:: max(1, len(matrix_RC) // rows)].astype(np.float32)
    # Squares of tiny or huge values leave the range of float32; a power of two changes no rounding.
    sample_RC = np.ldexp(sample_RC, -int(np.frexp(np.abs(sample_RC).max(initial=0.0))[1]))
    power = float(np.square(sample_RC).mean())
    if not power or columns > MOST_COLUMNS:
        return 0
    correlation = [0.0] * (LONGEST_LINE + 2)  # by lag
    for lag in range(1, min(columns, len(correlation))):
        correlation[lag] = float(abs((sample_RC[:, lag:] * sample_RC[:, :-lag]).mean())) / power
    peaks = [
        lag for lag in range(2, LONGEST_LINE + 1) if max(correlation[lag - 1], correlation[lag + 1]) < correlation[lag]
    ]
    best = max(peaks, key=correlation.__getitem__, default=0)
    if correlation[best] >= LEAST_CORRELATION:
        return best
    return ONE_LINE if correlation[1] >= LEAST_CORRELATION else 0


def _prior(layout: Layout, level: int) -> Floats:
    """Return the prior counts of symbols in rows of one magnitude level."""
    mean = float(octaves(np.array([level], np.int32), layout.steps)[0]) if layout.steps else float(layout.levels)
    prior_K = peaked(layout.low, layout.high, max(mean, 0.25))
    if layout.skips_zero:
        prior_K = np.delete(prior_K, -layout.low)
    if not len(prior_K):
        raise ArtifactError("an integer stream must not have non-zeros where all values are zero.")
    return prior_K


def _symbols(layout: Layout, values_N: Matrix) -> Integers:
    symbols_N = values_N.astype(np.int32)
    symbols_N -= layout.low
    return symbols_N - (values_N > 0) if layout.skips_zero else symbols_N


def _values(layout: Layout, symbols_N: Integers) -> Matrix:
    values_N = symbols_N.astype(np.int16)
    values_N += np.int16(layout.low)
    return values_N + (values_N >= 0) if layout.skips_zero else values_N
