"""A folder of images per class: ``cat/1.png``, or ``train/cat/1.png`` with ``test/cat/2.png`` (and ``validation``)."""

import collections
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kondense.data.collection import Collection, Labelled, Source
from kondense.data.entries import is_data
from kondense.data.image_files import LISTED, ImageFiles, surveyed
from kondense.data.picture import MAX_PIXELS, Geometry, shown
from kondense.data.pieces import Bring, present
from kondense.errors import InputError
from kondense.files import MOST_LEVELS
from kondense.logging import LOG

SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}  # by split, the names of its folder in lower case
AROUND = ("dataset", "data", "images", "imgs", "split", "set")  # words before or after these: train_images, TestSet


def wanted(name: str) -> bool:
    """Return whether a file of this name is an image."""
    return name.lower().endswith(SUFFIXES) and is_data(name)


def collect(source: Path, geometry: Geometry, max_pixels: int = MAX_PIXELS, bring: Bring = present) -> Collection:
    """List the images below ``source``; they are decoded when they are taken.

    Args:
        source: the folder; it, or its ``train`` folder, holds one folder per class.
        geometry: of the finished images; without a size, all images must be of one size, and without channels they are
            grey if all images are.
        max_pixels: of one picture; larger ones cannot be read.
        bring: makes files complete before they are read.

    Raises:
        InputError: no images, one class, a class without training images, test classes that are not in train, images
            of several sizes without a size in ``geometry``, or a class whose name is no text.
    """
    roots = _splits(source)
    classes = _classes(roots["train"])
    listed = {name: _listed(root, classes, name) for name, root in roots.items()}
    geometry = surveyed([path for paths, _ in listed.values() for path in paths], geometry, max_pixels, bring)
    parts = {
        name: Labelled(ImageFiles(tuple(paths), geometry, max_pixels, bring), np.array(labels, np.int64))
        for name, (paths, labels) in listed.items()
    }
    return Collection(classes=tuple(classes), origin=str(source), **parts)


def split_of(name: str) -> str:
    """Return the split that a folder of this name holds; "" for any other name.

    >>> [split_of(name) for name in ("train", "Val", "test_set", "Training Data", "images-dev", "trainer", "set")]
    ['train', 'validation', 'test', 'train', 'validation', '', '']
    """
    plain = re.sub(r"[\s_.-]+", "", name.lower())
    cut = {plain, *(plain.removesuffix(word) for word in AROUND), *(plain.removeprefix(word) for word in AROUND)}
    return next((split for split, known in SPLITS.items() if cut & {*known}), "")


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and is_data(path.name))


def _splits(source: Path) -> dict[str, Path]:
    """Return the folders of the splits that ``source`` has; itself as ``train`` if it holds the classes."""
    names = _folders(source)
    found = {split: [name for name in names if split_of(name) == split and _folders(source / name)] for split in SPLITS}
    for split, folders in found.items():
        if len(folders) > 1:
            raise InputError(f"{shown(source)} must hold one folder of {split}, but has {' and '.join(folders)}.")
    if not found["train"]:
        # A class may be called train; its folder then holds images, not folders.
        given = [folder for folders in found.values() for folder in folders]
        if given and len(given) == len(names):
            raise InputError(f"{shown(source)} must hold a folder train beside {' and '.join(given)}, but has none.")
        return {"train": source}
    roots = {split: source / folders[0] for split, folders in found.items() if folders}
    if others := sorted(set(names) - {root.name for root in roots.values()}):
        flat = [name for name in others if split_of(name)]
        why = f" ({_named(flat)} without a folder per class)" if flat else ""
        LOG.warning(f"{shown(source)}: {_named(others)} beside {roots['train'].name} left out{why}")
    return roots


def _classes(root: Path) -> list[str]:
    classes = _folders(root)
    if len(classes) < 2:
        raise InputError(
            f"{shown(root)} must hold one folder of images for each of at least 2 classes, but has"
            f" {len(classes)}{': ' if classes else ''}{', '.join(map(shown, classes))}{_way_out(root, classes)}."
        )
    for name in classes:
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):  # no text for reports and JSON
            raise InputError(f"{shown(root)} must name its classes in UTF-8 without line feeds, but has {shown(name)}.")
    if all(len(_split_names(root / name)) > 1 for name in classes):
        first = shown(classes[0])
        inner = _split_names(root / classes[0])[0]
        raise InputError(
            f"{shown(root)} must hold the folders of the splits above those of the classes ({inner}/{first}), but has"
            f" them in each class ({first}/{inner})."
        )
    below = [_folders(root / name) for name in classes]
    if len(below[0]) > 1 and all(names == below[0] for names in below):
        LOG.warning(
            f"{shown(root)}: {_named(classes)} hold the same folders ({_named(below[0])}) and are read as the classes;"
            " if they are splits, call them train, validation and test"
        )
    return classes


def _split_names(folder: Path) -> list[str]:
    """Return the folders in ``folder`` that are called like splits; none if there are others."""
    names = _folders(folder)
    return names if all(map(split_of, names)) else []


def _way_out(root: Path, classes: Sequence[str]) -> str:
    """Return where the classes may be instead, in words; empty if nothing is known."""
    if classes and len(inner := _folders(root / classes[0])) > 1:
        return f"; {shown(root / classes[0])} has {len(inner)}: give that as the source"
    place = root / classes[0] if classes else root
    images = sum(wanted(path.name) for path in place.iterdir() if path.is_file())
    return f"; move the {images} images of {shown(place)} to a folder per class" if images > 1 else ""


def _listed(root: Path, classes: Sequence[str], split: str) -> tuple[list[Path], list[int]]:
    unknown = [name for name in _folders(root) if name not in classes]
    if unknown:
        raise InputError(
            f"{shown(root)} must hold classes of train only ({_named(classes)}), but has {len(unknown)} others:"
            f" {_named(unknown)}."
        )
    paths: list[Path] = []
    labels: list[int] = []
    empty, others, instead = [], collections.Counter[str](), collections.Counter[str]()
    for label, name in enumerate(classes):
        found = collections.Counter[str]()
        images = sorted(_images(root / name, found))
        paths += images
        labels += [label] * len(images)
        others += found
        if not images:
            empty.append(name)
            instead += found
    if empty and (split == "train" or not paths):
        held = f", only {_kinds(instead)}" if instead else ""
        raise InputError(f"{_folder_of(root, empty)} must hold images ({', '.join(SUFFIXES)}), but has none{held}.")
    if empty:
        LOG.warning(f"{shown(root)} has no image of {len(empty)} classes: {_named(empty)}")
    if others:
        LOG.info(f"{shown(root)}: {others.total()} files that are no images left out ({_kinds(others)})")
    return paths, labels


def _kinds(others: "collections.Counter[str]") -> str:
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(LISTED))


def _images(folder: Path, others: "collections.Counter[str]") -> list[Path]:
    """Return the images in ``folder`` and below, and count the other files by suffix."""
    images, left = [], [(str(folder), 1)]
    while left:  # os.walk itself would end in a RecursionError where folders in folders have no end
        parent, level = left.pop()
        _, folders, names = next(os.walk(parent), ("", [], []))
        below = [os.path.join(parent, name) for name in folders if is_data(name)]
        others["linked folders"] += sum(map(os.path.islink, below))
        left += [(path, level + 1) for path in below if not os.path.islink(path)]
        if left and left[-1][1] > MOST_LEVELS:
            raise InputError(f"{shown(folder)} must have at most {MOST_LEVELS} folders in each other.")
        for name in filter(is_data, names):
            if wanted(name):
                images.append(Path(parent, name))
            else:
                others[Path(name).suffix.lower()] += 1
    return images


def _folder_of(root: Path, empty: Sequence[str]) -> str:
    return shown(root / empty[0]) if len(empty) == 1 else f"{len(empty)} folders of {shown(root)} ({_named(empty)})"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(shown, names[:LISTED])) + more


def _collect(source: Path | None, geometry: Geometry, max_pixels: int, bring: Bring = present) -> Collection:
    assert source is not None  # DataPrepConfig requires it
    return collect(source, geometry, max_pixels, bring)


SOURCE = Source(_collect, wanted, in_pieces=True)
