"""The one decoder: pictures of every kind, and sizes as torchvision makes them."""

import struct
import zlib

import numpy as np
import pytest
import torch
from kondense.data.dataset import Dataset, load_dataset
from kondense.data.picture import Geometry, PictureError, decode, facts
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run
from kondense.inference.pictures import read_picture
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, PILToTensor, Resize, ToTensor


def pixels(height=12, width=12, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(height, width, depth, kind, rows, *chunks):
    """Return a PNG file with chunks that Pillow does not write."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def turned(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def sixteen(path, transparent=None):
    levels = np.random.default_rng(0).integers(0, 65536, (12, 12), dtype=np.uint16)
    levels[:4] = 54321
    chunks = [(b"tRNS", struct.pack(">H", transparent))] if transparent else []
    path.write_bytes(png(12, 12, 16, 0, [row.astype(">u2").tobytes() for row in levels], *chunks))


def sixteen_colour(path):
    levels = np.random.default_rng(0).integers(0, 65536, (12, 12, 3), dtype=np.uint16)
    path.write_bytes(png(12, 12, 16, 2, [row.astype(">u2").tobytes() for row in levels]))


def sixteen_pgm(path):
    levels = np.random.default_rng(0).integers(0, 65536, (12, 12), dtype=np.uint16)
    path.write_bytes(b"P5 12 12 65535\n" + levels.astype(">u2").tobytes())


def palette(path, **options):
    Image.fromarray(pixels()).quantize(8).save(path, **options)


KINDS = {
    "rgba.png": lambda path: Image.fromarray(pixels(channels=4)).save(path),
    "rgba.webp": lambda path: Image.fromarray(pixels(channels=4)).save(path, lossless=True, exact=True),
    "rgba.tif": lambda path: Image.fromarray(pixels(channels=4)).save(path),
    "la.png": lambda path: Image.fromarray(pixels(channels=2)).save(path),
    "palette.png": palette,
    "palette_one_clear.png": lambda path: palette(path, transparency=3),
    "palette_levels.png": lambda path: palette(path, transparency=bytes(range(0, 240, 30))),
    "clear.gif": lambda path: palette(path, transparency=2),
    "grey_clear.png": lambda path: Image.fromarray(pixels()[..., 0] // 64 * 64).save(path, transparency=64),
    "rgb_clear.png": lambda path: Image.fromarray(pixels() // 128 * 128).save(path, transparency=(128, 0, 0)),
    "bits.png": lambda path: Image.fromarray(pixels()[..., 0] > 128).save(path),
    "sixteen.png": sixteen,
    "sixteen_clear.png": lambda path: sixteen(path, 54321),
    "sixteen_colour.png": sixteen_colour,
    "sixteen.pgm": sixteen_pgm,
    "sixteen.tif": lambda path: Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257).save(path),
    "cmyk.jpg": lambda path: Image.fromarray(pixels()).convert("CMYK").save(path),
    "cmyk.tif": lambda path: Image.fromarray(pixels()).convert("CMYK").save(path),
    "grey.jpg": lambda path: Image.fromarray(pixels()[..., 0]).save(path),
    "turned.jpg": lambda path: turned(Image.fromarray(pixels(9, 14)), path),
    "turned.png": lambda path: turned(Image.fromarray(pixels(9, 14, 4)), path),
    "turned.webp": lambda path: turned(Image.fromarray(pixels(9, 14)), path),
    "wide.png": lambda path: Image.fromarray(pixels(7, 31)).save(path),
}


@pytest.mark.parametrize("options", [{}, {"resize": 10}, {"image_width": 5, "interpolation": "bicubic"}])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_way_into_a_data_set_and_into_a_model_gives_the_same_pixels(tmp_path, channels, options):
    source = tmp_path / "images"
    for name in ("cat", "dog"):
        (source / name).mkdir(parents=True)
        for file, write in KINDS.items():
            write(source / name / file)
    config = DataPrepConfig(
        dataset_name="folder", source=str(source), image_size=8, channels=channels, test_fraction=0.5, **options
    )
    size, steps = config.size, config.steps
    geometry = Geometry(size, channels, steps, config.interpolation)
    expected = {name: decode(source / "cat" / name, geometry).tobytes() for name in KINDS}
    shape = (channels, *size)
    for name, content in expected.items():
        inferred = read_picture(source / "cat" / name, shape, resize=steps, interpolation=config.interpolation)
        assert inferred.tobytes() == content, name
    run(config, dataset_dir=tmp_path / "dataset")
    run(DataPrepConfig(**(config.to_dict() | {"source": f"file://{source}"})), dataset_dir=tmp_path / "stored")
    directly = Dataset.from_folder(
        source, image_size=size, channels=channels, resize=steps, interpolation=config.interpolation, test_fraction=0.5
    )
    for dataset in (load_dataset(tmp_path / "dataset"), load_dataset(tmp_path / "stored"), directly):
        parts = [dataset.train, dataset.validation, dataset.test]
        found = sorted(image.numpy().tobytes() for part in parts for image in part.images)
        assert found == sorted([*expected.values(), *expected.values()])
        assert (dataset.resize, dataset.interpolation) == (steps, config.interpolation)


def test_what_pictures_look_like(tmp_path):
    def decoded(name, channels=3):
        KINDS[name](tmp_path / name)
        height, width = (facts(tmp_path / name).height, facts(tmp_path / name).width)
        return decode(tmp_path / name, Geometry((height, width), channels)).transpose(1, 2, 0)

    layers = pixels(channels=4).astype(np.float64)
    on_black = layers[..., :3] * layers[..., 3:] / 255
    assert np.abs(decoded("rgba.png") - on_black).max() <= 1
    levels = pixels(channels=2).astype(np.float64)
    assert np.abs(decoded("la.png", 1)[..., 0] - levels[..., 0] * levels[..., 1] / 255).max() <= 1
    assert (decoded("sixteen.png", 1)[:4] == 54321 >> 8).all() and (decoded("sixteen_clear.png", 1)[:4] == 0).all()
    high = np.random.default_rng(0).integers(0, 65536, (12, 12, 3), dtype=np.uint16) >> 8
    assert np.array_equal(decoded("sixteen_colour.png"), high)
    assert np.array_equal(decoded("sixteen.tif", 1), pixels()[..., :1])
    deep = np.random.default_rng(0).integers(0, 65536, (12, 12, 1), dtype=np.uint16)
    assert np.array_equal(decoded("sixteen.pgm", 1), deep >> 8)
    colours = pixels() // 128 * 128
    colours[(colours == (128, 0, 0)).all(-1)] = 0
    assert np.array_equal(decoded("rgb_clear.png"), colours)
    assert decoded("turned.png").shape == (14, 9, 3)


SIZES = ((64, 64), (57, 91), (91, 57), (20, 300))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"])
@pytest.mark.parametrize(
    ("resize", "crop"),
    [((40,), (32, 32)), ((40,), (40, 24)), ((33,), (32, 50)), ((32, 20), (32, 20)), ((40, 50), (32, 32))],
)
def test_sizes_are_those_of_torchvision(tmp_path, resize, crop, interpolation):
    steps = Resize(resize if len(resize) > 1 else resize[0], InterpolationMode(interpolation)), CenterCrop(crop)
    for size in SIZES:
        image = Image.fromarray(pixels(*size))
        image.save(tmp_path / "image.png")
        for mode, channels in (("RGB", 3), ("L", 1)):
            expected = PILToTensor()(Compose(steps)(image.convert(mode))).numpy()
            found = decode(tmp_path / "image.png", Geometry(crop, channels, resize, interpolation))
            assert np.array_equal(found, expected), size


def test_inputs_are_those_of_torchvision(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(pixels(40 + index, 50, seed=index)).save(tmp_path / name / f"{index}.png")
    dataset = Dataset.from_folder(tmp_path, image_size=24, resize=32, normalization="imagenet")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    assert (list(dataset.mean), list(dataset.std)) == (mean, std)
    transform = Compose([Resize(32), CenterCrop(24), ToTensor(), Normalize(mean, std)])
    theirs = torch.stack([transform(Image.open(path)) for path in sorted(tmp_path.glob("cat/*"))])
    parts = (dataset.train, dataset.validation, dataset.test)
    ours = torch.cat([dataset.normalise(part.images) for part in parts])
    for image in theirs:
        assert (ours - image).abs().flatten(1).max(1).values.min() < 1e-5


def test_arrays_take_the_normalisation_of_a_network():
    images, labels = np.zeros((60, 3, 4, 4), np.uint8), np.arange(60) % 2
    assert Dataset.from_arrays((images, labels), normalization="half").mean == (0.5, 0.5, 0.5)
    assert Dataset.from_arrays((images, labels), normalization=([0.1, 0.2, 0.3], [0.5] * 3)).std == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="for each of 1 channels, but have 3"):
        Dataset.from_arrays((images[:, :1], labels), normalization="imagenet")


def test_a_picture_that_resizing_would_make_too_large_is_refused(tmp_path):
    path = tmp_path / "line.png"
    Image.new("L", (1, 5000)).save(path)
    assert decode(path, Geometry((8, 8), 1), max_pixels=5000).shape == (1, 8, 8)  # the centre, cut before it is resized
    with pytest.raises(PictureError, match="at most 5000 pixels .max_pixels. after resize=8, but has 8x40000"):
        decode(path, Geometry((8, 8), 1, (8,)), max_pixels=5000)


@pytest.mark.parametrize("form", ["EPS", "TGA", "PCX", "ICNS"])
def test_formats_that_no_data_set_needs_are_not_opened(tmp_path, form):
    """Pillow starts Ghostscript for EPS, whatever the file's name is."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 64)).save(path, form)
    with pytest.raises(PictureError, match="it is of no known format"):
        decode(path, Geometry((8, 8), 3))


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(60_000, 60_000, 1, 0, [b""]))
    with pytest.raises(PictureError, match="bomb.png must have at most 178956970 pixels"):
        decode(path, Geometry((8, 8), 1))
    path.write_bytes(png(300, 400, 1, 0, [b""]))
    with pytest.raises(PictureError, match="at most 1000 pixels .max_pixels., but has 400x300"):
        facts(path, max_pixels=1000)


def test_the_transparent_colour_of_16_bits_makes_no_other_pixel_black(tmp_path):
    levels = np.array([[(1, 2, 3), (256, 512, 768)]], ">u2")
    (tmp_path / "image.png").write_bytes(png(1, 2, 16, 2, [levels.tobytes()], (b"tRNS", struct.pack(">3H", 1, 2, 3))))
    assert decode(tmp_path / "image.png", Geometry((1, 2), 3))[:, 0, 1].tolist() == [1, 2, 3]


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_other_depths_are_refused(tmp_path, mode):
    image = Image.new(mode, (8, 8))
    image.save(tmp_path / "image.tif")
    with pytest.raises(PictureError, match=f"must have 8 or 16 bits per channel, but has mode {mode}"):
        decode(tmp_path / "image.tif", Geometry((8, 8), 1))


def test_built_in_images_are_sized_as_pictures_are(tmp_path, cifar10_dir):
    config = DataPrepConfig(dataset_name="cifar10", source=str(cifar10_dir), channels=1, image_size=20, image_width=16)
    run(config, dataset_dir=tmp_path / "sized")
    run(DataPrepConfig(dataset_name="cifar10", source=str(cifar10_dir)), dataset_dir=tmp_path / "plain")
    sized, plain = load_dataset(tmp_path / "sized"), load_dataset(tmp_path / "plain")
    assert sized.shape == (1, 20, 16)
    for found, original in zip(sized.test.images[:5], plain.test.images, strict=False):
        Image.fromarray(original.permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
        assert np.array_equal(found.numpy(), read_picture(tmp_path / "image.png", (1, 20, 16)))
