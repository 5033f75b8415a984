"""The order of columns: each is coded once, and the neighbours it looks at were coded before it."""

import numpy as np
import pytest
from kondense.codec.neighbours import DIAGONAL, DIRECT, MOST_COLUMNS, passes


@pytest.mark.parametrize(("columns", "line"), [(25, 5), (50, 5), (784, 28), (30, 7), (9, 3), (6, 2), (11, 1), (3, 2)])
def test_neighbours_lie_side_by_side_in_one_image_and_come_in_earlier_passes(columns: int, line: int) -> None:
    width, height = (columns, 1) if line == 1 else (line, line)
    coded: list[int] = []
    looked_at = 0
    for part in passes(columns, line):
        assert not isinstance(part.columns, slice)
        before = set(coded)
        coded += part.columns.tolist()
        if part.neighbours is None:
            continue
        for column, found_4 in zip(part.columns.tolist(), part.neighbours.T.tolist(), strict=True):
            image, y, x = column // (width * height), column // width % height, column % width
            places = []
            for other in found_4:
                if other < columns:
                    assert other in before and other // (width * height) == image
                    places.append((other // width % height - y, other % width - x))
            assert len(places) == len(set(places)) and (set(places) <= set(DIRECT) or set(places) <= set(DIAGONAL))
            looked_at += len(places)
    assert sorted(coded) == list(range(columns))
    assert looked_at >= columns // 3


def test_all_direct_neighbours_are_known_to_the_last_pass() -> None:
    last = passes(784, 28)[-1]
    assert last.neighbours is not None and not isinstance(last.columns, slice)
    inner_P = np.isin(last.columns // 28, range(1, 27)) & np.isin(last.columns % 28, range(1, 27))
    assert (last.neighbours[:, inner_P] < 784).all()
    assert len(last.columns) == 392


def test_without_lines_all_columns_are_coded_at_once() -> None:
    (only,) = passes(10 * MOST_COLUMNS, 0)
    assert only.columns == slice(0, 10 * MOST_COLUMNS) and only.neighbours is None


def test_sums_are_those_of_the_neighbours() -> None:
    image = np.arange(1, 17).reshape(4, 4)
    padded = np.append(image.reshape(1, 16), np.zeros((1, 1), int), axis=1)
    _, diagonal, direct = passes(16, 4)
    assert diagonal.sums(padded).tolist() == [[1 + 3 + 9 + 11, 3 + 11, 9 + 11, 11]]
    around = np.pad(image, 1)
    expected = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]
    assert direct.sums(padded).tolist() == [expected.reshape(-1)[direct.columns].tolist()]
