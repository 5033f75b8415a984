"""Code a matrix of integers: where it is not zero, then the values, row by row of like magnitude.

Shapes: R rows (output channels), C columns; N values in the order of the matrix.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.artifacts.codec_bytes import decode_numbers, encode_numbers
from components.artifacts.codec_models import code_places, code_symbols, flat, peaked
from components.artifacts.codec_streams import Floats, Integers, Meter, Reader, Stream, Writer
from components.artifacts.files import ArtifactError

WIDEST = 1024  # distinct values from the smallest to the largest
DENSITY_STEPS = (0, 1, 2)  # levels of row density per octave that the encoder tries
MAGNITUDE_STEPS = (0, 1, 3)  # levels of row magnitude per octave that the encoder tries
# Rows' worth of average density that a column starts with: the fewer, the more columns differ. The encoder tries all
# of them on a matrix of up to PRIORS_UP_TO elements; a larger one has rows enough to learn from.
COLUMN_PRIORS = (16.0, 2.0, 5.0, 50.0)
PRIORS_UP_TO = 2**21
Matrix = NDArray[np.int16]
# Powers of two in steps of a sixth, written out since pow may round differently from machine to machine.
SIXTHS = (1.0, 1.122462048309373, 1.2599210498948732, 1.4142135623730951, 1.5874010519681994, 1.7817974362806785)


def encode_integers(matrix_RC: Matrix) -> bytes:
    """Encode a matrix that has an element and whose values span at most WIDEST integers, -32768 not among them."""
    return min((_encode(matrix_RC, sparse) for sparse in _worth_trying(matrix_RC)), key=len)


def decode_integers(content: bytes, rows: int, columns: int) -> Matrix:
    """Decode a matrix of ``rows`` by ``columns``; the caller has bounded their product.

    Raises:
        ArtifactError: ``content`` is no such matrix.
    """
    layout, start = _read_header(content, rows, columns)
    return _code(Reader(content[start:]), layout, None)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What both sides must know before the first symbol.

    Attributes:
        rows: R.
        columns: C.
        low: smallest value.
        high: largest value.
        sparse: whether places of non-zeros are coded apart from values.
        density_steps: levels per octave of row density.
        nonzeros: how many there are, where there are no such levels.
        steps: levels per octave of row magnitude.
        levels: the highest of these or, where there are none, the mean magnitude.
        prior: of COLUMN_PRIORS.
    """

    rows: int
    columns: int
    low: int
    high: int
    sparse: bool
    density_steps: int
    nonzeros: int
    steps: int
    levels: int
    prior: int

    @property
    def skips_zero(self) -> bool:
        """Whether zero is none of the coded values, since its places are coded apart."""
        return self.sparse and self.low <= 0 <= self.high


def _worth_trying(matrix_RC: Matrix) -> tuple[bool, ...]:
    density = np.count_nonzero(matrix_RC) / matrix_RC.size
    return (False,) if density > 0.97 else (True,) if density < 0.7 else (True, False)


def _encode(matrix_RC: Matrix, sparse: bool) -> bytes:
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
    layout = Layout(rows, columns, low, high, sparse, density_steps, nonzeros, steps, levels, 0)
    if sparse and matrix_RC.size <= PRIORS_UP_TO:
        layouts = [dataclasses.replace(layout, prior=prior) for prior in range(len(COLUMN_PRIORS))]
        layout = min(layouts, key=lambda tried: _places_bits(tried, matrix_RC))
    writer = Writer()
    _code(writer, layout, matrix_RC)
    return encode_header(layout) + writer.finish()


def encode_header(layout: Layout) -> bytes:
    """Return the numbers of ``layout``, most of them in a byte each."""
    low = 2 * layout.low if layout.low >= 0 else -2 * layout.low - 1
    kind = 0
    for value, count in _kind(layout):
        kind = kind * count + value
    return encode_numbers([kind, low, layout.high - layout.low, layout.levels, layout.nonzeros])


def _kind(layout: Layout) -> list[tuple[int, int]]:
    """Return each choice of ``layout`` and among how many it is."""
    return [
        (layout.prior, len(COLUMN_PRIORS)),
        (DENSITY_STEPS.index(layout.density_steps), len(DENSITY_STEPS)),
        (MAGNITUDE_STEPS.index(layout.steps), len(MAGNITUDE_STEPS)),
        (int(layout.sparse), 2),
    ]


def _read_header(content: bytes, rows: int, columns: int) -> tuple[Layout, int]:
    """Return the layout and where the header ends."""
    numbers, start = decode_numbers(content, 5)
    kind, low, spread, levels, nonzeros = numbers
    kind, sparse = divmod(kind, 2)
    kind, steps = divmod(kind, len(MAGNITUDE_STEPS))
    prior, density_steps = divmod(kind, len(DENSITY_STEPS))
    low = low // 2 if low % 2 == 0 else -(low + 1) // 2
    in_range = low > -(2**15) and low + spread < 2**15 and spread < WIDEST and prior < len(COLUMN_PRIORS)
    if not (in_range and nonzeros < 2**32 and levels < 2**8):
        raise ArtifactError(f"an integer stream must have a header in range, but has {numbers}.")
    chosen = (DENSITY_STEPS[density_steps], nonzeros, MAGNITUDE_STEPS[steps], levels, prior)
    return Layout(rows, columns, low, low + spread, bool(sparse), *chosen), start


def _code(stream: Stream, layout: Layout, matrix_RC: Matrix | None) -> Matrix:
    """Code the whole matrix; ``matrix_RC`` is None when reading."""
    if layout.sparse:
        places_RC = _code_places(stream, layout, matrix_RC)
    else:
        stream.expect(layout.rows * layout.columns * (layout.high > layout.low))
        places_RC = np.ones((layout.rows, layout.columns), np.bool_)
    known_R = None if matrix_RC is None else _magnitude_levels(matrix_RC, layout.sparse, layout.steps)
    prior_K = flat(layout.levels + 1 if layout.steps else 1)
    magnitude_R = code_symbols(stream, prior_K, layout.rows, known_R)
    coded_RC = np.zeros((layout.rows, layout.columns), np.int16)
    for level in np.unique(magnitude_R):
        in_level_RC = places_RC & (magnitude_R == level)[:, None]
        values_N = None if matrix_RC is None else matrix_RC[in_level_RC]
        coded_RC[in_level_RC] = _code_values(stream, layout, int(level), int(in_level_RC.sum()), values_N)
    return coded_RC


def _code_places(stream: Stream, layout: Layout, matrix_RC: Matrix | None) -> NDArray[np.bool_]:
    """Code each row's density and then where the matrix is not zero."""
    columns = max(layout.columns, 1)
    if layout.density_steps:
        known_R = None if matrix_RC is None else _density_levels(matrix_RC, layout.density_steps)
        highest = 1 + layout.density_steps * columns.bit_length()
        levels_R = code_symbols(stream, flat(highest + 1), layout.rows, known_R)
        density_R = np.minimum(_octaves(levels_R, layout.density_steps), columns) / columns
    elif not layout.nonzeros:
        return np.zeros((layout.rows, layout.columns), np.bool_)
    else:
        stream.expect(layout.rows * layout.columns)
        density_R = np.full(layout.rows, min(1.0, layout.nonzeros / (columns * max(layout.rows, 1))))
    known_RC = None if matrix_RC is None else matrix_RC != 0
    return code_places(stream, density_R, layout.columns, COLUMN_PRIORS[layout.prior], known_RC)


def _places_bits(layout: Layout, matrix_RC: Matrix) -> float:
    meter = Meter()
    _code_places(meter, layout, matrix_RC)
    return meter.bits_spent


def _code_values(stream: Stream, layout: Layout, level: int, count: int, values_N: Matrix | None) -> Matrix:
    """Code the values of the rows of one magnitude level."""
    mean = float(_octaves(np.array([level], np.int32), layout.steps)[0]) if layout.steps else float(layout.levels)
    prior_K = peaked(layout.low, layout.high, max(mean, 0.25))
    if layout.skips_zero:
        prior_K = np.delete(prior_K, -layout.low)
    if not len(prior_K):
        if count:
            raise ArtifactError("an integer stream must not have non-zeros where all values are zero.")
        return np.zeros(0, np.int16)
    symbols_N: Integers | None = None
    if values_N is not None:
        symbols_N = values_N.astype(np.int32) - layout.low - (layout.skips_zero & (values_N > 0))
    decoded_N = code_symbols(stream, prior_K, count, symbols_N) + layout.low
    return (decoded_N + (layout.skips_zero & (decoded_N >= 0))).astype(np.int16)


def _density_levels(matrix_RC: Matrix, steps: int) -> Integers:
    """Return 0 for an empty row and else 1 + its non-zeros in octaves, ``steps`` to one."""
    count_R = np.count_nonzero(matrix_RC, axis=1)
    return np.where(count_R == 0, 0, 1 + np.rint(steps * np.log2(np.maximum(count_R, 1)))).astype(np.int32)


def _cheapest_density_steps(matrix_RC: Matrix) -> int:
    """Estimate for which of DENSITY_STEPS the places of non-zeros cost least, the rows' levels included."""
    rows, columns = matrix_RC.shape
    count_R = np.count_nonzero(matrix_RC, axis=1)

    def cost(steps: int) -> float:
        level_R = _density_levels(matrix_RC, steps) if steps else np.zeros(rows, np.int32)
        rows_L = np.bincount(level_R).astype(np.float64)
        ones_L = np.bincount(level_R, weights=count_R)
        cells_L = rows_L * columns
        places = float((_bits(cells_L) - _bits(ones_L) - _bits(cells_L - ones_L)).sum())
        levels = float(rows * np.log2(rows) - _bits(rows_L).sum()) + np.count_nonzero(rows_L) * np.log2(rows + 1)
        return places + levels * (steps > 0)

    return min(DENSITY_STEPS, key=cost)


def _bits(count: NDArray[Any]) -> NDArray[Any]:
    """Return count * log2(count), 0 for 0: the terms that an entropy is made of."""
    return np.multiply(count, np.log2(np.maximum(count, 1)))


def _magnitude_levels(matrix_RC: Matrix, sparse: bool, steps: int) -> Integers:
    """Return each row's mean magnitude in octaves, ``steps`` to one; 0 for below 1 and where steps is 0."""
    total_R = np.abs(matrix_RC).sum(1, dtype=np.int64)
    count_R = np.count_nonzero(matrix_RC, axis=1) if sparse else np.full(len(matrix_RC), matrix_RC.shape[1])
    mean_R = total_R / np.maximum(count_R, 1)
    return np.where(mean_R < 1, 0, 1 + np.rint(steps * np.log2(np.maximum(mean_R, 1)))).astype(np.int32) * (steps > 0)


def _octaves(levels: Integers, steps: int) -> Floats:
    """Return 0 for level 0 and else 2^((level - 1) / steps)."""
    sixths = np.maximum(levels - 1, 0) * (6 // steps)
    values: Floats = np.where(levels == 0, 0.0, np.ldexp(np.array(SIXTHS)[sixths % 6], np.minimum(sixths // 6, 64)))
    return values


def _cheapest_steps(matrix_RC: Matrix, sparse: bool) -> int:
    """Estimate for which of MAGNITUDE_STEPS the values cost least, their learning included."""
    columns = matrix_RC.shape[1]
    kept_RC = matrix_RC != 0 if sparse else np.ones_like(matrix_RC, np.bool_)
    values_N = matrix_RC[kept_RC].astype(np.int32) - int(matrix_RC.min())
    if not len(values_N):
        return 0
    width = int(values_N.max()) + 1

    def cost(steps: int) -> float:
        level_R = _magnitude_levels(matrix_RC, sparse, steps)
        level_N = np.repeat(level_R, columns)[kept_RC.ravel()]
        counts = np.bincount(level_N * width + values_N).astype(np.float64)
        counts = np.append(counts, np.zeros(-len(counts) % width)).reshape(-1, width)
        total_L = counts.sum(1)
        bits = float(
            (total_L * np.log2(np.maximum(total_L, 1))).sum() - (counts * np.log2(np.maximum(counts, 1))).sum()
        )
        used_L = np.count_nonzero(counts, axis=1)
        # Half of Rissanen's price per parameter: the prior's shape is nearly right.
        return bits + float((0.25 * used_L * np.log2(np.maximum(total_L, 1))).sum()) + 2.5 * len(level_R) * (steps > 0)

    return min(MAGNITUDE_STEPS, key=cost)
