"""Data sets: artifacts and the files of sources."""

import gzip
import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hardness.parsers.parser import SIDE, Parser, Read, written

MAX_PIXELS = 2**20


def _dataset(scratch: Path) -> Path:
    from kondense.data.dataset import save_dataset

    from tests.support.toy_training import toy_dataset

    save_dataset(scratch / "data", toy_dataset(train=6, size=SIDE))
    return scratch / "data"


def _dataset_descriptions(scratch: Path) -> list[bytes]:
    return [(_dataset(scratch) / "dataset.json").read_bytes()]


def _read_dataset(path: Path) -> object:
    from kondense.artifacts.metadata import metadata_of
    from kondense.data.dataset import load_dataset

    data = load_dataset(path.parent)
    data.normalise(data.test.images[:1])
    return metadata_of(path.parent)


def _splits(scratch: Path) -> list[bytes]:
    return [(_dataset(scratch) / "test.safetensors").read_bytes()]


def _read_split(path: Path) -> object:
    from kondense.data.dataset_files import load_split
    from kondense.data.description import read_description
    from kondense.data.shard_index import place_of

    description = read_description(path.parent / "dataset.json")
    return load_split(path, description, place_of(description.get("shards"), path.parent, ""))


def _shards(scratch: Path) -> Path:
    from kondense.data.dataset import save_dataset

    from tests.support.shard_makers import sharded
    from tests.support.toy_training import toy_dataset

    save_dataset(scratch / "data", sharded(toy_dataset(train=6, size=SIDE), scratch / "made"))
    return scratch / "data"


def _shard_descriptions(scratch: Path) -> list[bytes]:
    return [(_shards(scratch) / "dataset.json").read_bytes()]


def _shard_indexes(scratch: Path) -> list[bytes]:
    return [(_shards(scratch) / "test.safetensors").read_bytes()]


def _read_shards(path: Path) -> object:
    """Read the images of a split, whatever digest dataset.json states of its file."""
    from kondense.data.dataset_files import load_split
    from kondense.data.description import read_description
    from kondense.data.shard_index import place_of

    description = read_description(path.parent / "dataset.json")
    split = load_split(
        path.parent / "test.safetensors", description, place_of(description.get("shards"), path.parent, "")
    )
    return split.images[: min(2, len(split.images))]


def _shard_files(scratch: Path) -> list[bytes]:
    return [next((_shards(scratch) / "shards").glob("test-000000-*.tar")).read_bytes()]


def _read_shard(content: bytes, scratch: Path) -> object:
    """Read the images of a shard that has the digest that dataset.json states of it."""
    path = scratch / "data/dataset.json"
    description = json.loads(path.read_bytes())
    entry = description["shards"]["files"]["test"][0]
    (scratch / "data/shards" / entry[0]).write_bytes(content)
    entry[1:] = [len(content), hashlib.sha256(content).hexdigest()]
    path.write_text(json.dumps(description))
    return _read_shards(path)


def _pictures(_: Path) -> list[bytes]:
    from PIL import Image

    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (9, 11), np.uint8))
    colour = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8))
    clear = Image.fromarray(rng.integers(0, 256, (9, 11, 4), np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (9, 11), np.uint16))
    palette = colour.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (grey, "PNG", {}),
        (clear, "PNG", {}),
        (wide, "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (colour, "JPEG", {"exif": exif}),
        (grey, "JPEG", {"progressive": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (palette, "GIF", {"save_all": True, "append_images": [palette.rotate(90)]}),
        (colour, "BMP", {}),
        (grey, "PPM", {}),
        (colour, "PPM", {}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (wide, "TIFF", {}),
        (clear, "WEBP", {"lossless": True}),
        (colour, "WEBP", {}),
    ]
    contents = []
    for image, form, options in made:
        file = io.BytesIO()
        image.save(file, form, **options)
        contents.append(file.getvalue())
    return contents


def _read_picture(path: Path) -> None:
    from kondense.data.picture import Geometry, decode, facts

    facts(path, max_pixels=MAX_PIXELS)
    decode(path, Geometry((SIDE, SIDE), 3), max_pixels=MAX_PIXELS)


def _idx(compressed: bool) -> Callable[[Path], list[bytes]]:
    def make(_: Path) -> list[bytes]:
        array = np.arange(5 * SIDE * SIDE, dtype=np.uint8).reshape(5, SIDE, SIDE)
        content = bytes((0, 0, 8, 3)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        return [gzip.compress(content) if compressed else content]

    return make


def _read_idx(path: Path) -> object:
    from kondense.data.idx import read_idx

    return read_idx(path, 3)


def _compressed(read: Read) -> Read:
    """Return a reader of the compressed content, so that mutations get past the digest of gzip."""
    return lambda content, scratch: read(gzip.compress(content, 1), scratch)


def _batches(_: Path) -> list[bytes]:
    batch = {
        "data": np.zeros((2, 3072), np.uint8),
        "labels": [0, 1],
        "filenames": ["a.png", "b.png"],
        "batch_label": "one",
    }
    return [pickle.dumps(batch, protocol) for protocol in (0, 2, 4)]


def _read_batch(path: Path) -> object:
    from kondense.data.cifar import _batch

    return _batch(path, "labels")


PARSERS = (
    Parser("dataset.json", "json", _dataset_descriptions, written("data/dataset.json", _read_dataset)),
    Parser("a split", "safetensors", _splits, written("data/test.safetensors", _read_split), 2),
    Parser("dataset.json of shards", "json", _shard_descriptions, written("data/dataset.json", _read_shards), 0.5),
    Parser("index of shards", "safetensors", _shard_indexes, written("data/test.safetensors", _read_shards)),
    Parser("a shard", "bytes", _shard_files, _read_shard),
    Parser("pictures", "chunks", _pictures, written("picture", _read_picture), 2, allowance=16 * MAX_PIXELS),
    Parser("idx", "bytes", _idx(False), written("images", _read_idx), 2),
    Parser("idx.gz", "bytes", _idx(True), written("images.gz", _read_idx)),
    Parser("idx in gzip", "bytes", _idx(False), _compressed(written("images.gz", _read_idx))),
    Parser("CIFAR batch", "bytes", _batches, written("batch", _read_batch), 2),
)
