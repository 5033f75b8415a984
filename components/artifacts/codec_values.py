"""Code the values of a matrix of integers, by the magnitude of their row and by the value some columns back.

The weights of neighbouring pixels and of neighbouring places of a kernel are alike, so a value tells something of the
one next to it or a line below. Shapes: R rows, C columns; K symbols; N values.
"""

import numpy as np
from numpy.typing import NDArray

from components.artifacts.codec_layout import MOST_BLOCKS, Layout, octaves
from components.artifacts.codec_models import code_symbols, peaked
from components.artifacts.codec_streams import Floats, Integers, Meter, Stream
from components.artifacts.files import ArtifactError

Matrix = NDArray[np.int16]
CONTEXTS = 5  # of the value ``lag`` columns back: large or small, below or above zero, and zero
LAGS = range(1, 65)  # that the encoder looks at, on
SAMPLE_ROWS = 128  # so many rows
LEAST_CORRELATION = 0.15  # from which on a lag is worth trying,
LEAST_GAIN = 0.01  # and what it must save to be worth the time it takes


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
    if layout.lag:
        return _code_by_neighbours(stream, layout, places_RC, level_R, matrix_RC)
    coded_RC = np.zeros((layout.rows, layout.columns), np.int16)
    for level in np.unique(level_R):
        in_level_RC = places_RC & (level_R == level)[:, None]
        count = int(in_level_RC.sum())
        prior_K = _prior(layout, int(level), count)
        known_N = None if matrix_RC is None else _symbols(layout, matrix_RC[in_level_RC])
        symbols_N = code_symbols(stream, prior_K, count, known_N) if count else np.zeros(0, np.int32)
        coded_RC[in_level_RC] = _values(layout, symbols_N)
    return coded_RC


def values_bits(layout: Layout, places_RC: NDArray[np.bool_], level_R: Integers, matrix_RC: Matrix) -> float:
    """Return what the values cost."""
    meter = Meter()
    code_values(meter, layout, places_RC, level_R, matrix_RC)
    return meter.bits_spent


def likeliest_lag(matrix_RC: Matrix) -> int:
    """Return how many columns apart values are most alike, 0 where they are nowhere."""
    sample_RC = matrix_RC[:: max(1, len(matrix_RC) // SAMPLE_ROWS)].astype(np.float32)
    columns = sample_RC.shape[1]
    power = float(np.square(sample_RC).mean())
    lags = [lag for lag in LAGS if lag < columns <= lag * MOST_BLOCKS]
    if not lags or not power:
        return 0
    alike = {lag: float(abs((sample_RC[:, lag:] * sample_RC[:, :-lag]).mean())) / power for lag in lags}
    best = max(lags, key=alike.__getitem__)
    return best if alike[best] >= LEAST_CORRELATION else 0


def _code_by_neighbours(
    stream: Stream, layout: Layout, places_RC: NDArray[np.bool_], level_R: Integers, matrix_RC: Matrix | None
) -> Matrix:
    """Code blocks of ``lag`` columns, each value in the context of the one in the block before."""
    coded_RC = np.zeros((layout.rows, layout.columns), np.int16)
    weights: dict[int, Floats] = {}
    for start in range(0, layout.columns, layout.lag):
        stop = min(layout.columns, start + layout.lag)
        context_RB = np.repeat(level_R[:, None] * CONTEXTS, stop - start, axis=1)
        if start:
            context_RB += _context(layout, coded_RC[:, start - layout.lag : stop - layout.lag])
        places_RB = places_RC[:, start:stop]
        for context in np.unique(context_RB[places_RB]).tolist():
            chosen_RB = places_RB & (context_RB == context)
            count = int(chosen_RB.sum())
            weight_K = weights[context] if context in weights else _prior(layout, context // CONTEXTS, count)
            known_N = None if matrix_RC is None else _symbols(layout, matrix_RC[:, start:stop][chosen_RB])
            symbols_N = stream.symbols(weight_K, count, known_N)
            weights[context] = weight_K + np.bincount(symbols_N, minlength=len(weight_K))
            coded_RC[:, start:stop][chosen_RB] = _values(layout, symbols_N)
    return coded_RC


def _context(layout: Layout, values_RB: Matrix) -> Integers:
    """Return the context that each value makes for its neighbour, [0, CONTEXTS)."""
    large = max(1, max(layout.high, -layout.low) // 3)
    return (2 + np.sign(values_RB) * (1 + (np.abs(values_RB) > large))).astype(np.int32)


def _prior(layout: Layout, level: int, count: int) -> Floats:
    """Return how often each symbol is taken to have come before the first, in rows of one magnitude level."""
    mean = float(octaves(np.array([level], np.int32), layout.steps)[0]) if layout.steps else float(layout.levels)
    prior_K = peaked(layout.low, layout.high, max(mean, 0.25))
    if layout.skips_zero:
        prior_K = np.delete(prior_K, -layout.low)
    if not len(prior_K) and count:
        raise ArtifactError("an integer stream must not have non-zeros where all values are zero.")
    return prior_K


def _symbols(layout: Layout, values_N: Matrix) -> Integers:
    return values_N.astype(np.int32) - layout.low - (layout.skips_zero & (values_N > 0))


def _values(layout: Layout, symbols_N: Integers) -> Matrix:
    values_N = symbols_N + layout.low
    return (values_N + (layout.skips_zero & (values_N >= 0))).astype(np.int16)
