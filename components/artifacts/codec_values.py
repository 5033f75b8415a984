"""Code the values of a matrix of integers, by the magnitude of their row and by the values next to them.

The weights of neighbouring pixels and of neighbouring places of a kernel are alike, so a value tells something of
those next to it. Shapes: R rows, C columns; P columns of a pass; K symbols; N values.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.codec_layout import Layout, octaves
from components.artifacts.codec_models import Frequencies, peaked
from components.artifacts.codec_neighbours import MOST_COLUMNS, ONE_LINE, passes
from components.artifacts.codec_streams import Floats, Integers, Stream
from components.artifacts.files import ArtifactError

Matrix = NDArray[np.int16]
CONTEXTS = 5  # of the sum of a value's neighbours: large or small, below or above zero, and zero
UNKNOWN = 2  # where it has none that came before
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
    frequencies: dict[int, Frequencies] = {}  # by context
    for part in passes(layout.columns, layout.line):
        places_RP = places_RC[:, part.columns]
        known_RP = None if matrix_RC is None else matrix_RC[:, part.columns]
        coded_RP = padded_RC[:, part.columns]  # zeros still; a view where all columns are coded at once
        context_RP = level_R[:, None] * CONTEXTS + UNKNOWN  # [R, 1] where none is known
        if part.neighbours is not None:
            context_RP = level_R[:, None] * CONTEXTS + _contexts(layout, part.sums(padded_RC))
        for context in np.flatnonzero(np.bincount(context_RP.ravel())).tolist():
            chosen_RP = places_RP & (context_RP == context)
            count = int(np.count_nonzero(chosen_RP))
            if not count:
                continue
            if context not in frequencies:
                frequencies[context] = Frequencies(_prior(layout, context // CONTEXTS))
            known_N = None if known_RP is None else _symbols(layout, known_RP[chosen_RP])
            coded_RP[chosen_RP] = _values(layout, frequencies[context].code(stream, count, known_N))
        padded_RC[:, part.columns] = coded_RP
    return padded_RC[:, :-1]


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


def _contexts(layout: Layout, sums_RP: Integers) -> Integers:
    """Return the context that the sum of its neighbours makes for each value, [0, CONTEXTS)."""
    large = max(1, max(layout.high, -layout.low) // 3)
    return (UNKNOWN + np.sign(sums_RP) * (1 + (np.abs(sums_RP) > large))).astype(np.int32)


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
