"""What both sides of the integer coder must know before the first symbol, and how it is written.

Shapes: R rows, C columns; N values.
"""

import dataclasses

import numpy as np

from kondense.codec.bytes import decode_numbers, encode_numbers
from kondense.codec.neighbours import MOST_COLUMNS
from kondense.codec.streams import Floats, Integers
from kondense.files import ArtifactError

WIDEST = 1024  # distinct values from the smallest to the largest
DENSITY_STEPS = (0, 1, 2)  # levels of row density per octave that the encoder tries
MAGNITUDE_STEPS = (0, 1, 3)  # levels of row magnitude per octave that the encoder tries
# Rows' worth of average density that a column starts with: the fewer, the more columns differ.
COLUMN_PRIORS = (16.0, 2.0, 5.0, 50.0)
MOST_ROOTS = 2
# Powers of two in steps of a sixth, written out since pow may round differently from machine to machine.
SIXTHS = (1.0, 1.122462048309373, 1.2599210498948732, 1.4142135623730951, 1.5874010519681994, 1.7817974362806785)


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
        line: columns per line of the images that a row is seen as (codec_neighbours); 0 where there are none.
        roots: how little row and column tell where neighbours do (codec_models), of 0 .. MOST_ROOTS.
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
    line: int = 0
    roots: int = 0

    @property
    def skips_zero(self) -> bool:
        """Whether zero is none of the coded values, since its places are coded apart."""
        return self.sparse and self.low <= 0 <= self.high


def encode_header(layout: Layout) -> bytes:
    """Return the numbers of ``layout``, most of them in a byte each."""
    low = 2 * layout.low if layout.low >= 0 else -2 * layout.low - 1
    kind = 0
    for value, count in _kind(layout):
        kind = kind * count + value
    lines = layout.line * (MOST_ROOTS + 1) + layout.roots
    return encode_numbers([kind, low, layout.high - layout.low, layout.levels, layout.nonzeros, lines])


def _kind(layout: Layout) -> list[tuple[int, int]]:
    """Return each choice of ``layout`` and among how many it is."""
    return [
        (layout.prior, len(COLUMN_PRIORS)),
        (DENSITY_STEPS.index(layout.density_steps), len(DENSITY_STEPS)),
        (MAGNITUDE_STEPS.index(layout.steps), len(MAGNITUDE_STEPS)),
        (int(layout.sparse), 2),
    ]


def read_header(content: bytes, rows: int, columns: int) -> tuple[Layout, int]:
    """Return the layout and where the header ends."""
    numbers, start = decode_numbers(content, 6)
    kind, low, spread, levels, nonzeros, lines = numbers
    kind, sparse = divmod(kind, 2)
    kind, steps = divmod(kind, len(MAGNITUDE_STEPS))
    prior, density_steps = divmod(kind, len(DENSITY_STEPS))
    low = low // 2 if low % 2 == 0 else -(low + 1) // 2
    in_range = low > -(2**15) and low + spread < 2**15 and spread < WIDEST and prior < len(COLUMN_PRIORS)
    line, roots = divmod(lines, MOST_ROOTS + 1)
    line_in_range = not line or line < columns <= MOST_COLUMNS
    if not (in_range and nonzeros < 2**32 and levels < 2**8 and line_in_range):
        raise ArtifactError(f"an integer stream must have a header in range, but has {numbers}.")
    chosen = (DENSITY_STEPS[density_steps], nonzeros, MAGNITUDE_STEPS[steps], levels, prior, line, roots)
    return Layout(rows, columns, low, low + spread, bool(sparse), *chosen), start


def octaves(levels: Integers, steps: int) -> Floats:
    """Return 0 for level 0 and else 2^((level - 1) / steps)."""
    sixths = np.maximum(levels - 1, 0) * (6 // steps)
    values: Floats = np.where(levels == 0, 0.0, np.ldexp(np.array(SIXTHS)[sixths % 6], np.minimum(sixths // 6, 64)))
    return values
