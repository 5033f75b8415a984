"""Adjacent weights of a kernel or an image, and an order of coding in which most of them are known.

A row of a matrix is seen as square images of ``line`` by ``line`` columns: the weights of one input channel, or of one
unit for the pixels of an image. They are coded in three vectorised passes: every second one of every second line, then
those with known diagonal neighbours, then those with known direct neighbours. Shapes: R rows, C columns; P columns of
a pass.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE_LINE = 1  # all columns are one line
MOST_COLUMNS = 2**16  # with neighbours, which take memory
DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
DIRECT = ((-1, 0), (1, 0), (0, -1), (0, 1))
DIRECTIONS = 4


@dataclasses.dataclass(frozen=True)
class Pass:
    """Columns that are coded together.

    Attributes:
        columns: ascending indices [P], or a slice of all of them.
        neighbours: [4, P], the adjacent columns that earlier passes coded, C for a missing one; None: no neighbours.
    """

    columns: NDArray[np.intp] | slice
    neighbours: NDArray[np.intp] | None

    def sums(self, padded_RC: NDArray[Any]) -> NDArray[np.int32]:
        """Return the sum of each column's neighbours, [R, P]; only for passes with neighbours.

        Args:
            padded_RC: integers with a last column of zeros.
        """
        assert self.neighbours is not None
        sums_RP = np.zeros((len(padded_RC), self.neighbours.shape[1]), np.int32)
        for neighbour_P in self.neighbours:
            sums_RP += padded_RC[:, neighbour_P]
        return sums_RP


def passes(columns: int, line: int) -> tuple[Pass, ...]:
    """Return the passes of ``columns``; a single one if ``line`` is 0."""
    if not line:
        return (Pass(slice(0, columns), None),)
    column_C = np.arange(columns, dtype=np.intp)
    width, height = (columns, 1) if line == ONE_LINE else (line, line)
    x_C, y_C = column_C % width, column_C // width % height
    even_C, odd_C = (x_C % 2 == 0) & (y_C % 2 == 0), (x_C % 2 == 1) & (y_C % 2 == 1)

    def neighbours(chosen_P: NDArray[np.intp], directions: tuple[tuple[int, int], ...]) -> NDArray[np.intp]:
        neighbour_4P = np.full((DIRECTIONS, len(chosen_P)), columns, np.intp)
        for neighbour_P, (down, right) in zip(neighbour_4P, directions, strict=True):
            x_P, y_P, target_P = x_C[chosen_P] + right, y_C[chosen_P] + down, chosen_P + down * width + right
            inside_P = (x_P >= 0) & (x_P < width) & (y_P >= 0) & (y_P < height) & (target_P < columns)
            neighbour_P[inside_P] = target_P[inside_P]
        return neighbour_4P

    first, second, third = (np.flatnonzero(chosen_C) for chosen_C in (even_C, odd_C, ~(even_C | odd_C)))
    result = [Pass(first, None)]
    for chosen_P, directions in ((second, DIAGONAL), (third, DIRECT)):
        if len(chosen_P):
            result.append(Pass(chosen_P, neighbours(chosen_P, directions)))
    return tuple(result)
