"""A folder of images per class: ``cat/1.png``, or ``train/cat/1.png`` with ``test/cat/2.png`` (and ``validation``).

Shapes: N images, C channels, H height, W width, M chosen images; H = W = the image size.
"""

import dataclasses
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kondense.data.collection import Collection, Labelled, Source
from kondense.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("P", "RGB", "RGBA", "CMYK", "YCbCr", "PA", "RGBX", "LAB", "HSV")
ORIENTATION = 0x0112  # EXIF's tag; from 5 on, width and height are exchanged
# Errors of Pillow's decoders on damaged files; UnidentifiedImageError is an OSError.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)


def wanted(name: str) -> bool:
    """Return whether a file of this name is an image."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Images that are decoded when they are taken, [N, channels, image_size, image_size]."""

    paths: tuple[Path, ...]
    channels: int
    image_size: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen_M: NDArray[np.int64]) -> NDArray[np.uint8]:
        images_MHWC = np.empty((len(chosen_M), self.image_size, self.image_size, self.channels), np.uint8)
        for row, index in enumerate(chosen_M):
            images_MHWC[row] = self._decoded(self.paths[index])
        return np.ascontiguousarray(images_MHWC.transpose(0, 3, 1, 2))

    def _decoded(self, path: Path) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        with _opened(path) as image:
            try:
                upright = ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
            except DAMAGED as error:
                raise InputError(f"{path} must be an image, but it is damaged: {error}.") from error
        side = (self.image_size, self.image_size)
        fitted = upright if upright.size == side else ImageOps.fit(upright, side, Image.Resampling.BILINEAR)
        return np.asarray(fitted).reshape(*side, self.channels)


def collect(source: Path, *, image_size: int, channels: int) -> Collection:
    """List the images below ``source``; they are decoded when they are taken.

    Args:
        source: the folder; it, or its ``train`` folder, holds one folder per class.
        image_size: side in pixels; images are cropped to a central square and resized. 0: all images must be squares
            of one size.
        channels: 1 or 3; 0 is 1 if all images are grey, else 3.

    Raises:
        InputError: no images, one class, a class without images, a test class that is not in train, images of
            several sizes with ``image_size`` 0, or a file that is not an image; the text names it.
    """
    roots = _splits(source)
    classes = _folders(roots["train"])
    if len(classes) < 2:
        raise InputError(
            f"{roots['train']} must hold one folder of images for each of at least 2 classes, but has"
            f" {len(classes)}{': ' if classes else ''}{', '.join(classes)}."
        )
    listed = {name: _listed(root, classes) for name, root in roots.items()}
    all_paths = [path for paths, _ in listed.values() for path in paths]
    if not image_size or not channels:
        sizes, grey = _surveyed(all_paths)
        image_size = image_size or _common_size(all_paths, sizes)
        channels = channels or (1 if grey else 3)
    parts = {
        name: Labelled(ImageFiles(tuple(paths), channels, image_size), np.array(labels, np.int64))
        for name, (paths, labels) in listed.items()
    }
    return Collection(classes=tuple(classes), origin=str(source), **parts)


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _splits(source: Path) -> dict[str, Path]:
    # A class may be called train; its folder then holds images, not folders.
    if not (source / "train").is_dir() or not _folders(source / "train"):
        return {"train": source}
    roots = {}
    for split, names in SPLITS.items():
        folder = next((source / name for name in names if (source / name).is_dir()), None)
        if folder is not None:
            roots[split] = folder
    return roots


def _listed(root: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    unknown = sorted(set(_folders(root)) - set(classes))
    if unknown:
        raise InputError(f"{root} must hold classes of train only ({', '.join(classes)}), but has {unknown[0]!r}.")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(path for path in (root / name).rglob("*") if wanted(path.name) and path.is_file())
        if not images:
            raise InputError(f"{root / name} must hold images ({', '.join(SUFFIXES)}), but has none.")
        paths += images
        labels += [label] * len(images)
    return paths, labels


def _surveyed(paths: Sequence[Path]) -> tuple[list[tuple[int, int]], bool]:
    sizes, grey = [], True
    for path in paths:
        with _opened(path) as image:
            sizes.append(image.size[::-1] if _on_its_side(path, image) else image.size)
            grey = grey and image.mode in GREY_MODES
    return sizes, grey


def _on_its_side(path: Path, image: "Image.Image") -> bool:
    try:
        return int(image.getexif().get(ORIENTATION, 1)) >= 5
    except DAMAGED as error:
        raise InputError(f"{path} must be an image, but it is damaged: {error}.") from error


def _common_size(paths: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> int:
    width, height = sizes[0]
    for path, size in zip(paths, sizes, strict=True):
        if size != (height, height):
            raise InputError(
                f"images must be squares of one size, or image_size must be given, but {path} is {size[0]}x{size[1]}"
                f" and {paths[0]} is {width}x{height}."
            )
    return height


def _opened(path: Path) -> "Image.Image":
    from PIL import Image

    try:
        image = Image.open(path)
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise InputError(f"{path} must be an image, but cannot be read: {error}.") from error
    if image.mode not in GREY_MODES + COLOUR_MODES:
        raise InputError(f"{path} must have 8 bits per channel, but has mode {image.mode}.")
    return image


def _collect(source: Path | None, image_size: int, channels: int) -> Collection:
    assert source is not None  # DataPrepConfig requires it
    return collect(source, image_size=image_size, channels=channels)


SOURCE = Source(_collect, wanted)
