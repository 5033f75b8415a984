"""Weights that lie side by side in a kernel or in an image, and an order of columns in which most have known ones.

A row of a matrix is seen as square images of ``line`` by ``line`` columns: the weights of one input channel, or of one
unit for the pixels of an image. They are coded in three passes: every second one of every second line, then those
between four of these (diagonal neighbours known), then all others (direct neighbours known), so that each pass runs
vectorised. Shapes: R rows, C columns; P columns of a pass.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE_LINE = 1  # all columns are one line
MOST_COLUMNS = 2**16  # that have neighbours; the passes take memory for each
DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
DIRECT = ((-1, 0), (1, 0), (0, -1), (0, 1))
DIRECTIONS = 4


@dataclasses.dataclass(frozen=True)
class Pass:
    """Columns that are coded at once.

    Attributes:
        columns: their indices, [P], in order, or all of them as a slice.
        neighbours: [4, P], the columns next to each that earlier passes coded, C where there is none; None where no
            column has one.
    """

    columns: NDArray[np.intp] | slice
    neighbours: NDArray[np.intp] | None

    def sums(self, padded_RC: NDArray[Any]) -> NDArray[np.int32]:
        """Return the sum of each column's neighbours, [R, P]; only for passes that have any.

        Args:
            padded_RC: integers with a column of zeros behind the last.
        """
        assert self.neighbours is not None
        sums_RP = np.zeros((len(padded_RC), self.neighbours.shape[1]), np.int32)
        for neighbour_P in self.neighbours:
            sums_RP += padded_RC[:, neighbour_P]
        return sums_RP


def passes(columns: int, line: int) -> tuple[Pass, ...]:
    """Return in what order ``columns`` are coded; at once where ``line`` is 0."""
    if not line:
        return (Pass(slice(0, columns), None),)
    column_C = np.arange(columns, dtype=np.intp)
    width, height = (columns, 1) if line == ONE_LINE else (line, line)
    x_C, y_C = column_C % width, column_C // width % height
    even_C, odd_C = (x_C % 2 == 0) & (y_C % 2 == 0), (x_C % 2 == 1) & (y_C % 2 == 1)

    def neighbours(chosen_P: NDArray[np.intp], directions: tuple[tuple[int, int], ...]) -> NDArray[np.intp]:
        found_4P = np.full((DIRECTIONS, len(chosen_P)), columns, np.intp)
        for found_P, (down, right) in zip(found_4P, directions, strict=True):
            x_P, y_P, there_P = x_C[chosen_P] + right, y_C[chosen_P] + down, chosen_P + down * width + right
            inside_P = (x_P >= 0) & (x_P < width) & (y_P >= 0) & (y_P < height) & (there_P < columns)
            found_P[inside_P] = there_P[inside_P]
        return found_4P

    first, second, third = (np.flatnonzero(chosen_C) for chosen_C in (even_C, odd_C, ~(even_C | odd_C)))
    found = [Pass(first, None)]
    for chosen_P, directions in ((second, DIAGONAL), (third, DIRECT)):
        if len(chosen_P):
            found.append(Pass(chosen_P, neighbours(chosen_P, directions)))
    return tuple(found)
