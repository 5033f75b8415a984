"""The sizes of coded integers, to the byte: a change that costs bytes is seen here."""

from collections.abc import Callable

import numpy as np
import pytest
from kondense.codec.integers import decode_integers, encode_integers, places_save
from kondense.codec.layout import DENSITY_STEPS, read_header
from kondense.codec.streams import Reader
from numpy.typing import NDArray

Matrix = NDArray[np.int16]


def rng() -> np.random.RandomState:
    return np.random.RandomState(7)  # its stream is frozen


def spread(rows: int, columns: int, scale: float) -> Matrix:
    """Normal integers whose rows are of one magnitude."""
    return np.rint(rng().normal(0, scale, (rows, columns))).astype(np.int16)


def stepped(rows: int, columns: int, density: float) -> Matrix:
    """Integers whose rows double in magnitude, row after row, with a share of non-zeros."""
    random = rng()
    scale_R1 = 2.0 ** (np.arange(rows) % 6)[:, None]
    kept_RC = random.uniform(size=(rows, columns)) < density
    return np.where(kept_RC, 1 + np.rint(np.abs(random.normal(0, scale_R1, (rows, columns)))), 0).astype(np.int16)


def uneven(rows: int, columns: int) -> Matrix:
    """Signs whose rows are full, half full, nearly empty and empty."""
    random = rng()
    density_R1 = np.array([0.9, 0.4, 0.02, 0.0])[np.arange(rows) % 4][:, None]
    return ((random.uniform(size=(rows, columns)) < density_R1) * random.choice([-1, 1], (rows, columns))).astype("i2")


def pictures(rows: int, side: int) -> Matrix:
    """Rows that are images with one patch of non-zeros each."""
    random = rng()
    images = np.zeros((rows, side, side), np.int16)
    for image in images:
        top, left = random.randint(0, side - 6, 2)
        image[top : top + 6, left : left + 6] = random.randint(1, 4, (6, 6))
    return images.reshape(rows, -1)


CASES: dict[str, tuple[Callable[[], Matrix], int]] = {
    "one value": (lambda: np.full((3, 5), -4, np.int16), 6),
    "one large value": (lambda: np.full((3, 5), 3000, np.int16), 8),
    "zeros": (lambda: np.zeros((4, 6), np.int16), 6),
    "one row": (lambda: spread(1, 400, 3.0), 190),
    "one column": (lambda: spread(400, 1, 3.0), 191),
    "narrow": (lambda: spread(64, 50, 0.4), 391),
    "middle": (lambda: spread(64, 50, 0.8), 735),
    "full": (lambda: spread(64, 50, 20.0), 2584),
    "wide": (lambda: spread(40, 50, 100.0), 2228),
    "stepped full": (lambda: stepped(120, 60, 1.0), 3438),
    "stepped sparse": (lambda: stepped(120, 60, 0.2), 1419),
    "stepped nearly full": (lambda: stepped(120, 60, 0.85), 3491),
    "uneven rows": (lambda: uneven(200, 64), 1562),
    "uneven columns": (lambda: np.ascontiguousarray(uneven(64, 200).T), 1215),
    "patches": (lambda: pictures(60, 20), 1055),
}


@pytest.mark.parametrize("name", CASES)
def test_the_size_to_the_byte(name: str) -> None:
    make, size = CASES[name]
    matrix_RC = make()
    content = encode_integers(matrix_RC)
    assert len(content) == size
    np.testing.assert_array_equal(decode_integers(content, *matrix_RC.shape), matrix_RC)


LAYOUTS = {
    "one value": (0, 0, 0, 0, 4, 0, 0, 0),
    "one large value": (0, 0, 0, 0, 255, 0, 0, 0),
    "zeros": (1, 0, 0, 0, 0, 0, 0, 0),
    "one row": (0, 0, 0, 0, 2, 0, 0, 0),
    "one column": (1, 0, 344, 0, 3, 0, 0, 0),
    "narrow": (1, 0, 672, 0, 1, 3, 0, 0),
    "middle": (1, 0, 1710, 0, 1, 3, 0, 0),
    "full": (0, 0, 0, 0, 16, 0, 0, 0),
    "wide": (0, 0, 0, 0, 79, 0, 0, 0),
    "stepped full": (0, 0, 0, 3, 16, 0, 0, 0),
    "stepped sparse": (1, 0, 1462, 3, 17, 3, 0, 0),
    "stepped nearly full": (1, 0, 6102, 3, 16, 0, 0, 0),
    "uneven rows": (1, 1, 0, 0, 1, 2, 0, 0),
    "uneven columns": (1, 0, 4268, 0, 1, 1, 0, 0),
    "patches": (1, 0, 2160, 0, 2, 0, 20, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_encoder_has_chosen(name: str) -> None:
    matrix_RC = CASES[name][0]()
    layout, _ = read_header(encode_integers(matrix_RC), *matrix_RC.shape)
    fields = ("sparse", "density_steps", "nonzeros", "steps", "levels", "prior", "line", "roots")
    assert tuple(int(getattr(layout, field)) for field in fields) == LAYOUTS[name]


def two_densities(rows: int, columns: int, apart: float) -> Matrix:
    """Ones, a share of 0.4 more or less ``apart`` of each row."""
    random = rng()
    density_R1 = np.clip(0.4 + apart * random.choice([-1, 1], (rows, 1)), 0, 1)
    return (random.uniform(size=(rows, columns)) < density_R1).astype(np.int16)


@pytest.mark.parametrize(("rows", "columns", "apart"), [(8, 400, 0.04), (64, 100, 0.06), (8, 20, 0.2), (64, 100, 0.3)])
def test_densities_of_rows_are_coded_where_that_is_shorter(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, apart: float
) -> None:
    matrix_RC = two_densities(rows, columns, apart)
    chosen = encode_integers(matrix_RC)
    sizes = []
    for steps in DENSITY_STEPS:
        monkeypatch.setattr("kondense.codec.integers.DENSITY_STEPS", (steps,))
        sizes.append(len(encode_integers(matrix_RC)))
    assert len(chosen) == min(sizes) < max(sizes)


def test_magnitudes_of_rows_are_compared_on_some_rows_of_a_large_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix_RC = stepped(120, 60, 1.0)
    whole = encode_integers(matrix_RC)
    monkeypatch.setattr(
        "kondense.codec.integers.STEPS_SAMPLE", matrix_RC.size // 5
    )  # every fifth row, of all magnitudes
    assert encode_integers(matrix_RC) == whole


@pytest.mark.parametrize("share", [0.75, 0.85, 0.9])
def test_places_of_zeros_at_random_save_nothing(share: float) -> None:
    assert not places_save((rng().uniform(size=(400, 300)) < share).astype(np.int16))


@pytest.mark.parametrize("name", ["full", "stepped full"])
def test_lanes_give_the_same_values_back(name: str) -> None:
    matrix_RC = CASES[name][0]()
    content = encode_integers(matrix_RC, lanes=True, sparse=False)
    assert len(content) <= CASES[name][1] * 1.05 + 600
    np.testing.assert_array_equal(decode_integers(content, *matrix_RC.shape, lanes=True), matrix_RC)


@pytest.mark.parametrize(
    ("rows", "zeros", "expected"),
    [(1024, 0.0, False), (1024, 0.029, False), (1024, 0.031, True)],
)
def test_places_save_where_zeros_lie_together(rows: int, zeros: float, expected: bool) -> None:
    matrix_RC = np.ones((rows, 1024), np.int16)
    matrix_RC.reshape(-1)[: round(zeros * matrix_RC.size)] = 0
    assert places_save(matrix_RC) is expected


def test_a_reader_announces_each_of_the_symbols_before_it_has_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stream is too short for is refused by this number, and not by a failed allocation."""
    expected: list[int] = []
    expect = Reader.expect
    monkeypatch.setattr(Reader, "expect", lambda self, count: (expected.append(count), expect(self, count))[1])
    kinds = set()
    for make, _ in CASES.values():
        matrix_RC = make()
        content = encode_integers(matrix_RC)
        layout, _ = read_header(content, *matrix_RC.shape)
        expected.clear()
        assert np.array_equal(decode_integers(content, *matrix_RC.shape), matrix_RC)
        kind = (
            "full"
            if not layout.sparse
            else "steps"
            if layout.density_steps
            else "places"
            if layout.nonzeros
            else "zeros"
        )
        kinds.add(kind)
        if kind in ("full", "places"):
            assert expected[0] == matrix_RC.size * (layout.high > layout.low or layout.sparse)
    assert kinds >= {"full", "places", "steps", "zeros"}
