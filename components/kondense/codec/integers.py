"""Coding of a matrix of integers: the places of non-zeros, then the values by magnitude of their row.

Shapes: R rows (output channels), C columns; N values in the order of the matrix.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kondense.codec.lanes import LaneReader, LaneWriter
from kondense.codec.layout import (
    COLUMN_PRIORS,
    DENSITY_STEPS,
    MAGNITUDE_STEPS,
    MOST_ROOTS,
    Layout,
    encode_header,
    octaves,
    read_header,
)
from kondense.codec.models import Frequencies, code_places, flat
from kondense.codec.neighbours import passes
from kondense.codec.streams import Integers, Meter, Reader, Stream, Writer
from kondense.codec.values import code_values, likeliest_line

MOSTLY = 0.7  # share of non-zeros up to which their places are always coded separately
# Elements of a matrix up to which the encoder tries all priors of columns; larger ones have enough rows to learn from.
PRIORS_UP_TO = 2**21
LEAST_GAIN = 0.01  # minimum relative gain from neighbours
STEPS_SAMPLE = 2**19  # elements on which levels of magnitude are compared, at most twice as many
SAMPLE = 2**17  # approximate number of elements on which the gain is measured
Matrix = NDArray[np.int16]


def encode_integers(matrix_RC: Matrix, *, lanes: bool = False, sparse: bool | None = None) -> bytes:
    """Encode a non-empty matrix whose values span at most WIDEST integers and exclude -32768.

    Args:
        matrix_RC: the matrix.
        lanes: whether to use the coder of large tensors (see ``lanes``).
        sparse: whether the places of non-zeros are coded separately; None: as is shorter.
    """
    ways = _worth_trying(matrix_RC) if sparse is None else (sparse,)
    return min((_encode(matrix_RC, way, lanes) for way in ways), key=len)


def decode_integers(content: bytes | memoryview, rows: int, columns: int, *, lanes: bool = False) -> Matrix:
    """Decode a matrix of ``rows`` by ``columns``; the caller has bounded their product.

    Raises:
        ArtifactError: ``content`` is not valid.
    """
    layout, start = read_header(content, rows, columns)
    return _code(LaneReader(content[start:]) if lanes else Reader(content[start:]), layout, None)


def places_save(matrix_RC: Matrix) -> bool:
    """Return whether coding the places of zeros separately makes a large matrix shorter, measured on some rows."""
    if _worth_trying(matrix_RC) == (False,):
        return False
    sample_RC = matrix_RC[:: -(-matrix_RC.size // (2 * SAMPLE))]
    full, sparse = (_bits(_plain_layout(sample_RC, sparse), sample_RC) for sparse in (False, True))
    return full > (1 + LEAST_GAIN) * sparse


def _worth_trying(matrix_RC: Matrix) -> tuple[bool, ...]:
    density = np.count_nonzero(matrix_RC) / matrix_RC.size
    return (False,) if density > 0.97 else (True,) if density < MOSTLY else (True, False)


def _encode(matrix_RC: Matrix, sparse: bool, lanes: bool) -> bytes:
    layout = _plain_layout(matrix_RC, sparse)
    if sparse and np.count_nonzero(matrix_RC) < MOSTLY * matrix_RC.size and matrix_RC.size <= PRIORS_UP_TO:
        layouts = [dataclasses.replace(layout, prior=prior) for prior in range(len(COLUMN_PRIORS))]
        layout = min(layouts, key=lambda candidate: _places_bits(candidate, matrix_RC))
    layout = _with_neighbours(layout, matrix_RC)
    writer = LaneWriter(matrix_RC.size) if lanes else Writer()
    _code(writer, layout, matrix_RC)
    return encode_header(layout) + writer.finish()


def _plain_layout(matrix_RC: Matrix, sparse: bool) -> Layout:
    """Return a layout without neighbours and with the first prior of columns."""
    low, high = int(matrix_RC.min()), int(matrix_RC.max())
    steps = _cheapest_steps(matrix_RC, sparse)
    if steps:
        levels = int(_magnitude_levels(matrix_RC, sparse, steps).max())
    else:
        count = np.count_nonzero(matrix_RC) if sparse else matrix_RC.size
        levels = min(255, round(float(np.abs(matrix_RC).sum(dtype=np.int64)) / max(1, count)))
    rows, columns = matrix_RC.shape
    density_steps = _cheapest_density_steps(matrix_RC) if sparse else 0
    nonzeros = min(int(np.count_nonzero(matrix_RC)), 2**32 - 1) if sparse and not density_steps else 0
    return Layout(rows, columns, low, high, sparse, density_steps, nonzeros, steps, levels, 0)


def _with_neighbours(layout: Layout, matrix_RC: Matrix) -> Layout:
    """Return ``layout`` with lines if neighbours save enough, measured on a sample of rows."""
    line = likeliest_line(matrix_RC)
    if not line:
        return layout
    sample_RC = matrix_RC[:: -(-matrix_RC.size // SAMPLE)]
    plain = dataclasses.replace(layout, rows=len(sample_RC))
    if layout.nonzeros:
        plain = dataclasses.replace(plain, nonzeros=int(np.count_nonzero(sample_RC)))
    powers = range(MOST_ROOTS + 1) if layout.sparse else (0,)
    with_lines = min(
        (dataclasses.replace(plain, line=line, roots=roots) for roots in powers),
        key=lambda candidate: _places_bits(candidate, sample_RC) if layout.sparse else 0,
    )
    if _bits(with_lines, sample_RC) >= (1 - LEAST_GAIN) * _bits(plain, sample_RC):
        return layout
    return dataclasses.replace(layout, line=line, roots=with_lines.roots)


def _code(stream: Stream, layout: Layout, matrix_RC: Matrix | None) -> Matrix:
    """Code the matrix; ``matrix_RC`` is None when reading."""
    if layout.sparse:
        places_RC = _code_places(stream, layout, matrix_RC)
    else:
        stream.expect(layout.rows * layout.columns * (layout.high > layout.low))
        places_RC = np.ones((layout.rows, layout.columns), np.bool_)
    known_R = None if matrix_RC is None else _magnitude_levels(matrix_RC, layout.sparse, layout.steps)
    prior_K = flat(layout.levels + 1 if layout.steps else 1)
    magnitude_R = Frequencies(prior_K).code(stream, layout.rows, known_R)
    return code_values(stream, layout, places_RC, magnitude_R, matrix_RC)


def _code_places(stream: Stream, layout: Layout, matrix_RC: Matrix | None) -> NDArray[np.bool_]:
    """Code the density of each row and then the places of non-zeros."""
    columns = max(layout.columns, 1)
    if layout.density_steps:
        known_R = None if matrix_RC is None else _density_levels(matrix_RC, layout.density_steps)
        highest = 1 + layout.density_steps * columns.bit_length()
        levels_R = Frequencies(flat(highest + 1)).code(stream, layout.rows, known_R)
        density_R = np.minimum(octaves(levels_R, layout.density_steps), columns) / columns
    elif not layout.nonzeros:
        return np.zeros((layout.rows, layout.columns), np.bool_)
    else:
        stream.expect(layout.rows * layout.columns)
        density_R = np.full(layout.rows, min(1.0, layout.nonzeros / (columns * max(layout.rows, 1))))
    known_RC = None if matrix_RC is None else matrix_RC != 0
    return code_places(
        stream,
        density_R,
        layout.columns,
        passes(layout.columns, layout.line),
        column_prior=COLUMN_PRIORS[layout.prior],
        roots=layout.roots,
        places_RC=known_RC,
    )


def _places_bits(layout: Layout, matrix_RC: Matrix) -> float:
    meter = Meter()
    _code_places(meter, layout, matrix_RC)
    return meter.bits_spent


def _bits(layout: Layout, matrix_RC: Matrix) -> float:
    meter = Meter()
    _code(meter, layout, matrix_RC)
    return meter.bits_spent


def _density_levels(matrix_RC: Matrix, steps: int) -> Integers:
    """Return 0 for an empty row, else 1 + log2 of its non-zeros in units of 1 / ``steps``."""
    count_R = np.count_nonzero(matrix_RC, axis=1)
    return np.where(count_R == 0, 0, 1 + np.rint(steps * np.log2(np.maximum(count_R, 1)))).astype(np.int32)


def _cheapest_density_steps(matrix_RC: Matrix) -> int:
    """Return the best of DENSITY_STEPS by an estimate of the bits of places and levels."""
    rows, columns = matrix_RC.shape
    count_R = np.count_nonzero(matrix_RC, axis=1)

    def cost(steps: int) -> float:
        level_R = _density_levels(matrix_RC, steps) if steps else np.zeros(rows, np.int32)
        rows_L = np.bincount(level_R).astype(np.float64)
        ones_L = np.bincount(level_R, weights=count_R)
        cells_L = rows_L * columns
        places = float((_logs(cells_L) - _logs(ones_L) - _logs(cells_L - ones_L)).sum())
        levels = float(rows * np.log2(rows) - _logs(rows_L).sum()) + np.count_nonzero(rows_L) * np.log2(rows + 1)
        return places + levels * (steps > 0)

    return min(DENSITY_STEPS, key=cost)


def _logs(count: NDArray[Any]) -> NDArray[Any]:
    """Return count * log2(count), 0 for 0: the terms of an entropy."""
    return np.multiply(count, np.log2(np.maximum(count, 1)))


def _magnitude_levels(matrix_RC: Matrix, sparse: bool, steps: int) -> Integers:
    """Return 1 + log2 of each row's mean magnitude in units of 1 / ``steps``; 0 below 1 and if ``steps`` is 0."""
    total_R = np.abs(matrix_RC).sum(1, dtype=np.int64)
    count_R = np.count_nonzero(matrix_RC, axis=1) if sparse else np.full(len(matrix_RC), matrix_RC.shape[1])
    mean_R = total_R / np.maximum(count_R, 1)
    return np.where(mean_R < 1, 0, 1 + np.rint(steps * np.log2(np.maximum(mean_R, 1)))).astype(np.int32) * (steps > 0)


def _cheapest_steps(matrix_RC: Matrix, sparse: bool) -> int:
    """Return the best of MAGNITUDE_STEPS by an estimate of the bits of values and learning, for many rows on some."""
    every = max(1, matrix_RC.size // STEPS_SAMPLE)
    matrix_RC = matrix_RC[::every]
    kept_RC = matrix_RC != 0 if sparse else np.ones_like(matrix_RC, np.bool_)
    count_R = np.count_nonzero(kept_RC, axis=1)
    values_N = matrix_RC[kept_RC].astype(np.int32) - int(matrix_RC.min())
    if not len(values_N):
        return 0
    width = int(values_N.max()) + 1

    def cost(steps: int) -> float:
        level_R = _magnitude_levels(matrix_RC, sparse, steps)
        pair_N = np.repeat(level_R.astype(np.intp) * width, count_R)
        pair_N += values_N  # in place: the peak of the encoder's memory
        counts = np.bincount(pair_N).astype(np.float64) * every
        counts = np.append(counts, np.zeros(-len(counts) % width)).reshape(-1, width)
        total_L = counts.sum(1)
        bits = float(
            (total_L * np.log2(np.maximum(total_L, 1))).sum() - (counts * np.log2(np.maximum(counts, 1))).sum()
        )
        used_L = np.count_nonzero(counts, axis=1)
        # Half of Rissanen's cost per parameter, since the shape of the prior is nearly right.
        learning = float((0.25 * used_L * np.log2(np.maximum(total_L, 1))).sum())
        return bits + learning + 2.5 * len(level_R) * every * (steps > 0)

    return min(MAGNITUDE_STEPS, key=cost)
