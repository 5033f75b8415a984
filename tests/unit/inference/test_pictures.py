"""Image files of every kind as a model's pixels."""

from pathlib import Path

import numpy as np
import pytest
from kondense.data.image_files import ImageFiles
from kondense.data.picture import Geometry
from kondense.inference.pictures import read_picture
from PIL import Image


def gradient(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    planes = (255 * columns / width, 255 * rows / height, 255 * (rows + columns) / (width + height))
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "size"), [("a.png", (28, 28)), ("b.png", (90, 40)), ("c.bmp", (13, 50))])
def test_pixels_are_those_that_data_prep_trains_on(
    name: str, size: tuple[int, int], channels: int, tmp_path: Path
) -> None:
    gradient(*size).save(tmp_path / name)
    trained_on = ImageFiles((tmp_path / name,), Geometry((28, 28), channels))[np.array([0])][0]
    assert np.array_equal(read_picture(tmp_path / name, (channels, 28, 28)), trained_on)


def test_the_size_of_the_model_is_kept_pixel_by_pixel(tmp_path: Path) -> None:
    pixels = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    assert np.array_equal(read_picture(tmp_path / "grey.png", (1, 16, 16))[0], pixels)
    assert np.array_equal(read_picture(tmp_path / "grey.png", (3, 16, 16)), np.stack([pixels] * 3))


def test_a_photo_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    left_half_white = np.zeros((16, 16), np.uint8)
    left_half_white[:, :8] = 255
    Image.fromarray(left_half_white).save(tmp_path / "photo.png", exif=exif)
    top_half_white = left_half_white.T
    assert np.array_equal(read_picture(tmp_path / "photo.png", (1, 16, 16))[0], top_half_white)


def test_transparent_parts_are_black_and_16_bits_become_8(tmp_path: Path) -> None:
    layers = np.full((16, 16, 4), 200, np.uint8)
    layers[:, 8:, 3], layers[:, :8, 3] = 0, 255
    Image.fromarray(layers).save(tmp_path / "clear.png")
    found = read_picture(tmp_path / "clear.png", (3, 16, 16))
    assert (found[:, :, :8] == 200).all() and (found[:, :, 8:] == 0).all()
    Image.fromarray(np.full((16, 16), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    assert (read_picture(tmp_path / "deep.png", (1, 16, 16)) == 100).all()


def test_what_is_no_image_is_one_line_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no pixels")
    gradient(90, 70).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    for name, rule in (
        ("text.png", "must be an image, but cannot be read"),
        ("torn.png", "must be an image, but cannot be read"),
        ("absent.png", "must be an image, but is missing"),
        (".", "must be an image, but is a directory"),
    ):
        with pytest.raises(ValueError, match=rule) as caught:
            read_picture(tmp_path / name, (1, 16, 16))
        assert str(tmp_path) in str(caught.value)


def test_a_model_of_two_channels_takes_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 or 3 input channels, but has 2"):
        read_picture(tmp_path / "any.png", (2, 16, 16))
