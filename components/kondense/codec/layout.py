"""The header of the integer coder.

Shapes: R rows, C columns; N values.
"""

import dataclasses

import numpy as np

from kondense.codec.neighbours import MOST_COLUMNS
from kondense.codec.numbers import decode_numbers, encode_numbers
from kondense.codec.streams import Floats, Integers
from kondense.files import ArtifactError

WIDEST = 1024  # distinct values from the smallest to the largest
DENSITY_STEPS = (0, 1, 2)  # levels of row density per factor 2 that the encoder tries
MAGNITUDE_STEPS = (0, 1, 3)  # levels of row magnitude per factor 2 that the encoder tries
# Weight of the average density in that of a column, in rows; a smaller one suits columns that differ more.
COLUMN_PRIORS = (16.0, 2.0, 5.0, 50.0)
MOST_ROOTS = 2
# Powers of two in steps of a sixth, as constants because pow may round differently on other machines.
SIXTHS = (1.0, 1.122462048309373, 1.2599210498948732, 1.4142135623730951, 1.5874010519681994, 1.7817974362806785)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The parameters of a coded matrix, which encoder and decoder share.

    Attributes:
        rows: R.
        columns: C.
        low: smallest value.
        high: largest value.
        sparse: whether the places of non-zeros are coded separately from the values.
        density_steps: levels of row density per factor 2; 0: none.
        nonzeros: number of non-zeros, if there are no such levels.
        steps: levels of row magnitude per factor 2; 0: none.
        levels: the highest of these levels, or the mean magnitude if there are none.
        prior: index into COLUMN_PRIORS.
        line: columns per line of the images in a row (see ``neighbours``); 0: none.
        roots: reduces the effect of row and column where neighbours are known (see ``models``), 0 to MOST_ROOTS.
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
        """Whether zero is not among the coded values, since its places are coded separately."""
        return self.sparse and self.low <= 0 <= self.high


def encode_header(layout: Layout) -> bytes:
    """Return the encoded ``layout``, about one byte per number."""
    low = 2 * layout.low if layout.low >= 0 else -2 * layout.low - 1
    kind = 0
    for value, count in _kind(layout):
        kind = kind * count + value
    lines = layout.line * (MOST_ROOTS + 1) + layout.roots
    return encode_numbers([kind, low, layout.high - layout.low, layout.levels, layout.nonzeros, lines])


def _kind(layout: Layout) -> list[tuple[int, int]]:
    """Return the index of each choice in ``layout`` and the number of choices."""
    return [
        (layout.prior, len(COLUMN_PRIORS)),
        (DENSITY_STEPS.index(layout.density_steps), len(DENSITY_STEPS)),
        (MAGNITUDE_STEPS.index(layout.steps), len(MAGNITUDE_STEPS)),
        (int(layout.sparse), 2),
    ]


def read_header(content: bytes | memoryview, rows: int, columns: int) -> tuple[Layout, int]:
    """Return the layout and the end of the header."""
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
    """Return 0 for level 0, else 2^((level - 1) / steps)."""
    sixths = np.maximum(levels - 1, 0) * (6 // steps)
    values: Floats = np.where(levels == 0, 0.0, np.ldexp(np.array(SIXTHS)[sixths % 6], np.minimum(sixths // 6, 64)))
    return values
