"""Code the values of a matrix of integers, by the magnitude of their row and by the values next to them.

The weights of neighbouring pixels and of neighbouring places of a kernel are alike, so a value tells something of
those next to it. Shapes: R rows, C columns; P columns of a pass; K symbols; N values.
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
CONTEXTS = 5  # of the sum of a value's neighbours: large or small, below or above zero, and zero
UNKNOWN = 2  # where it has none that came before
BLOCK = 2**20  # elements that are coded at once, at most
LONGEST_LINE = 64  # that the encoder looks for, on
SAMPLE_ROWS = 128  # so many rows
LEAST_CORRELATION = 0.1  # from which on a line is worth trying


def code_values(
    stream: Stream, layout: Layout, places_RC: NDArray[np.bool_], level_R: Integers, matrix_RC: Matrix | None
) -> Matrix:
    """Code the values at ``places_RC``.

    Args:
        stream: a Writer, a Meter or a Reader.
        layout: of the matrix.
        places_RC: where there are values.
        level_R: the magnitude level of each row.
        matrix_RC: the matrix when writing, None when reading.
    """
    padded_RC = np.zeros((layout.rows, layout.columns + 1), np.int16)  # the last column: neighbours that are none
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
                known_N = None if known_BP is None else _symbols(layout, known_BP[chosen_BP])
                symbols_N = frequencies[key].code(stream, int(np.count_nonzero(chosen_BP)), known_N)
                coded_BP[chosen_BP] = _values(layout, symbols_N)
            block_BC[:, part.columns] = coded_BP
            padded_RC[rows_B] = block_BC
    return padded_RC[:, :-1]


def _blocks(level_R: Integers, columns: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each magnitude level and rows of it, as many as are coded at once."""
    count = max(1, BLOCK // max(1, columns))
    for level in np.unique(level_R).tolist():
        rows = np.flatnonzero(level_R == level)
        for start in range(0, len(rows), count):
            yield level, rows[start : start + count]


def _by_context(
    layout: Layout, part: Pass, block_BC: Matrix, places_BP: NDArray[np.bool_]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield each context that the neighbours make for values of a pass, and where these are; none without a value."""
    if part.neighbours is None:
        contexts = [(UNKNOWN, places_BP)]
    else:
        sums_BP = part.sums(block_BC)
        large = max(1, max(layout.high, -layout.low) // 3)
        context_BP = (UNKNOWN + np.sign(sums_BP) * (1 + (np.abs(sums_BP) > large))).astype(np.int8)
        contexts = [(context, places_BP & (context_BP == context)) for context in range(CONTEXTS)]
    yield from ((context, chosen_BP) for context, chosen_BP in contexts if chosen_BP.any())


def likeliest_line(matrix_RC: NDArray[Any]) -> int:
    """Return how long the lines are of the images that a row seems to be made of, 0 where it seems to be none.

    Values are alike one line apart, more than at lags next to it; a single line has values alike one apart.
    """
    sample_RC = matrix_RC[:: max(1, len(matrix_RC) // SAMPLE_ROWS)].astype(np.float32)
    columns = sample_RC.shape[1]
    power = float(np.square(sample_RC).mean())
    if not power or columns > MOST_COLUMNS:
        return 0
    alike = [0.0] * (LONGEST_LINE + 2)  # by lag
    for lag in range(1, min(columns, len(alike))):
        alike[lag] = float(abs((sample_RC[:, lag:] * sample_RC[:, :-lag]).mean())) / power
    peaks = [lag for lag in range(2, LONGEST_LINE + 1) if max(alike[lag - 1], alike[lag + 1]) < alike[lag]]
    best = max(peaks, key=alike.__getitem__, default=0)
    if alike[best] >= LEAST_CORRELATION:
        return best
    return ONE_LINE if alike[1] >= LEAST_CORRELATION else 0


def _prior(layout: Layout, level: int) -> Floats:
    """Return how often each symbol is taken to have come before the first, in rows of one magnitude level."""
    mean = float(octaves(np.array([level], np.int32), layout.steps)[0]) if layout.steps else float(layout.levels)
    prior_K = peaked(layout.low, layout.high, max(mean, 0.25))
    if layout.skips_zero:
        prior_K = np.delete(prior_K, -layout.low)
    if not len(prior_K):
        raise ArtifactError("an integer stream must not have non-zeros where all values are zero.")
    return prior_K


def _symbols(layout: Layout, values_N: Matrix) -> Integers:
    return values_N.astype(np.int32) - layout.low - (layout.skips_zero & (values_N > 0))


def _values(layout: Layout, symbols_N: Integers) -> Matrix:
    values_N = symbols_N + layout.low
    return (values_N + (layout.skips_zero & (values_N >= 0))).astype(np.int16)
