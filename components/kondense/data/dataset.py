"""The Dataset artifact: images and labels of three splits, with the mean and deviation that normalise them.

Shapes: N images, C channels, H height, W width.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kondense.artifacts.tensors import write_tensors
from kondense.data import folder, memory
from kondense.data.assembly import Rules, assembled, decoded_bytes
from kondense.data.collection import Collection, Labelled
from kondense.data.dataset_files import Split, check_split, load_split
from kondense.data.description import FORMAT_VERSION, FORMATS, SHARDS_VERSION, read_description
from kondense.data.examination import TELL
from kondense.data.picture import MAX_PIXELS, Geometry, sides
from kondense.data.pieces import opened_in_pieces
from kondense.data.shard_assembly import MAX_TENSOR_BYTES, Target, assembled_in_shards, target_for
from kondense.data.shard_index import beside, described_shards, index_of, place_of
from kondense.data.split import SPLITS
from kondense.data.spool import spooled
from kondense.data.streamed import ShardedImages
from kondense.files import json_bytes, new_directory, sha256, verify_files
from kondense.preprocessing import BILINEAR, DATASET, Preprocessing, check_normalization, normalization_of
from kondense.scratch import scratch_directory

__all__ = [
    "FORMATS",
    "FORMAT_VERSION",
    "SPLITS",
    "Dataset",
    "Split",
    "check_split",
    "dataset_digest",
    "load_dataset",
    "save_dataset",
]

Pair = tuple[ArrayLike | Tensor, ArrayLike | Tensor]  # images, labels
ALL = Rules()
Normalization = str | tuple[Sequence[float], Sequence[float]]  # a preset, or mean and std


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
    """Labelled images in three splits: train, validation and test.

    Make one with ``from_arrays``, ``from_loader``, ``from_folder`` or ``from_store``. These take images as uint8, or
    as float in [0, 1] without normalisation, and cut missing splits from the training images with ``seed``:
    ``test_fraction`` of them for the test, then ``validation_size`` images (0: one in twelve) for the validation.

    Attributes:
        name: names the data set in reports and published models.
        classes: names of the classes, by label.
        mean: per channel, for pixel values in [0, 1]; that of the training images unless another was asked for.
        std: standard deviation per channel, likewise.
        seed: seed of the split.
        source: where the images come from.
        train: training images and labels.
        validation: validation images and labels; all choices are made on them.
        test: test images and labels, for the final measurements.
        resize: sizes to which pictures were resized before the crop, see ``kondense.preprocessing.Preprocessing``.
        interpolation: of that resizing.
        skipped: numbers of images left out, by reason.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int
    source: str
    train: Split
    validation: Split
    test: Split
    resize: tuple[int, ...] = ()
    interpolation: str = BILINEAR
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls,
        train: Pair,
        validation: Pair | None = None,
        test: Pair | None = None,
        *,
        classes: Sequence[str] | None = None,
        name: str = "data",
        seed: int = 0,
        validation_size: int = 0,
        test_fraction: float = 0.2,
        normalization: Normalization = DATASET,
        duplicates: str = TELL,
    ) -> "Dataset":
        """Return the data set of NumPy arrays or tensors.

        Args:
            train: images [N, C, H, W], [N, H, W, C] or [N, H, W], uint8 or float in [0, 1], and integer labels [N].
            validation: likewise; cut from ``train`` if missing.
            test: likewise.
            classes: names of the classes, by label; by default the numbers up to the largest label.
            name: names the data set in reports and published models.
            seed: seed of the split.
            validation_size: training images kept for validation; 0 takes one in twelve, one of every class at least.
            test_fraction: fraction of ``train`` kept for the test if ``test`` is missing, (0, 1).
            normalization: ``dataset`` (the training images' own), ``imagenet``, ``half``, ``none``, or mean and std
                per channel for pixels in [0, 1]: those that a pretrained network was trained with.
            duplicates: what happens to images in two splits: ``tell`` logs them, ``drop`` leaves them out of the split
                that is judged on less, ``error`` refuses them.

        Raises:
            InputError: the arrays break one of these rules; the text gives the split, the rule and the value.

        >>> import numpy as np
        >>> images, labels = np.zeros((120, 28, 28), np.uint8), np.arange(120) % 3
        >>> Dataset.from_arrays(train=(images, labels), classes=["cat", "dog", "owl"], name="pets")
        Dataset(pets: 3 classes, images [1, 28, 28], 88 train, 8 validation, 24 test)
        """
        pairs = {"train": train, "validation": validation, "test": test}
        parts = {split: memory.from_pair(split, pair) for split, pair in pairs.items()}
        return cls._from_parts(
            parts,
            classes,
            name=name,
            seed=seed,
            rules=Rules(normalization=_normalization(normalization), duplicates=duplicates),
            validation_size=validation_size,
            test_fraction=test_fraction,
        )

    @classmethod
    def _from_parts(
        cls, parts: dict[str, Labelled | None], classes: Sequence[str] | None, *, name: str, **options: Any
    ) -> "Dataset":
        return cls.from_collection(memory.collection_of(parts, classes, name), name=name, **options)

    @classmethod
    def from_loader(
        cls,
        train: Iterable[Any],
        validation: Iterable[Any] | None = None,
        test: Iterable[Any] | None = None,
        *,
        max_tensor_bytes: int = MAX_TENSOR_BYTES,
        shards_at: str | Path = "",
        classes: Sequence[str] | None = None,
        name: str = "data",
        normalization: Normalization = DATASET,
        duplicates: str = TELL,
        **cut: Any,
    ) -> "Dataset":
        """Return the data set of DataLoaders, each read once: use loaders without augmentation and normalisation.

        Args:
            train: yields batches (images, labels) as ``from_arrays`` takes them, all of one image shape.
            validation: likewise; cut from ``train`` if missing.
            test: likewise.
            max_tensor_bytes: number of bytes of images up to which they are kept in memory; more go to a temporary
                file while they are read, and then into shards.
            shards_at: a directory, or an address in a store, that gets the shards; empty: a temporary directory, which
                is removed with the data set.
            classes: see ``from_arrays``, as for what follows.
            name: likewise.
            normalization: likewise.
            duplicates: likewise.
            cut: ``seed``, ``validation_size`` and ``test_fraction``, likewise.

        Raises:
            InputError: batches without labels or of unlike shapes, or values that ``from_arrays`` rejects.
            OSError: the disk is full.
        """
        loaders = {"train": train, "validation": validation, "test": test}
        rules = Rules(normalization=_normalization(normalization), duplicates=duplicates)
        with spooled(loaders, max_tensor_bytes) as (parts, needed):
            target = target_for(needed, max_tensor_bytes, shards_at)
            return cls._from_parts(parts, classes, name=name, rules=rules, target=target, **cut)

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        image_size: int | tuple[int, int] = 0,
        channels: int = 0,
        resize: int | tuple[int, int] = 0,
        interpolation: str = BILINEAR,
        normalization: Normalization = DATASET,
        max_bad: int = 0,
        max_pixels: int = MAX_PIXELS,
        duplicates: str = TELL,
        name: str = "folder",
        max_tensor_bytes: int = MAX_TENSOR_BYTES,
        shards_at: str | Path = "",
        **cut: Any,
    ) -> "Dataset":
        """Return the data set of a folder of images per class, as ``kondense run --dataset folder`` reads it.

        Args:
            path: a directory, or its address in a store (``s3://bucket/prefix``): ``cat/1.png``, or
                ``train/cat/1.png`` with ``test/cat/2.png`` and ``validation/...``.
            image_size: side in pixels, or (height, width), that images are cropped and resized to; 0: all are of one
                size.
            channels: 1 for grey, 3 for colour; 0 is 1 if all images are grey.
            resize: before a central crop to ``image_size``: the shorter side, or (height, width), as
                ``torchvision.transforms.Resize``; 0 crops to the aspect ratio first.
            interpolation: of the resizing, by Pillow's name.
            normalization: see ``from_arrays``.
            max_bad: number of unreadable pictures to leave out.
            max_pixels: pictures of more pixels cannot be read.
            duplicates: see ``from_arrays``.
            name: names the data set in reports and published models.
            max_tensor_bytes: see ``from_loader``.
            shards_at: likewise.
            cut: ``seed``, ``validation_size``, ``test_fraction`` and ``limit``, see ``kondense.data.split``.

        Raises:
            InputError: sizes that are none, no images, fewer than two classes, or files that are no images; the text
                names them.
        """
        size, steps = sides("image_size", image_size), sides("resize", resize)
        geometry = Geometry(size * 2 if len(size) == 1 else size, channels, steps, interpolation)
        rules = Rules(geometry, _normalization(normalization), max_bad, duplicates, strict=True)
        with opened_in_pieces(str(path), folder.wanted) as (directory, bring):
            collection = folder.collect(directory, geometry, max_pixels, bring)
            needed = decoded_bytes(collection, geometry, cut.get("limit", 0))
            target = target_for(needed, max_tensor_bytes, shards_at)
            return cls.from_collection(collection, name=name, source=str(path), rules=rules, target=target, **cut)

    @classmethod
    def from_store(cls, address: str | Path) -> "Dataset":
        """Return the data set that ``save`` or the data_prep stage wrote to a directory or a store.

        Args:
            address: a directory, ``minio://bucket/prefix`` or ``s3://bucket/prefix``.

        Raises:
            ArtifactError: a missing or damaged file, or an unknown format version.
            StoreError: the store cannot be reached.
        """
        from kondense.store.open import open_store

        if "://" not in str(address):
            return load_dataset(Path(address))
        with scratch_directory("dataset") as scratch:
            open_store(str(address)).download_artifact(scratch)
            return load_dataset(scratch, address=str(address))

    @classmethod
    def from_collection(
        cls,
        collection: Collection,
        *,
        name: str,
        source: str = "memory",
        seed: int = 0,
        rules: Rules = ALL,
        target: Target | None = None,
        **cut: Any,
    ) -> "Dataset":
        """Split a collection, read, examine and measure its images; see ``kondense.data.assembly``.

        With a ``target``, the images are written there as shards and are never all in memory.
        """
        if target is None:
            fields = assembled(collection, rules, name=name, seed=seed, **cut)
        else:
            fields = assembled_in_shards(collection, rules, target, name=name, seed=seed, **cut)
        return cls(name=name, seed=seed, source=source, **fields)

    def save(self, directory: str | Path) -> None:
        """Write the Dataset artifact to ``directory``, whole or not at all."""
        save_dataset(Path(directory), self)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(self.split(name))} {name}" for name in SPLITS)
        return f"Dataset({self.name}: {len(self.classes)} classes, images {list(self.shape)}, {sizes})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes an input of a network for these images."""
        return Preprocessing(self.mean, self.std, self.shape[1:], self.resize, self.interpolation)

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 images [N, C, H, W] as float32 of zero mean and unit variance per channel, on their device."""
        scale = torch.tensor([1.0 / (255.0 * std) for std in self.std]).to(images.device)
        shift = torch.tensor([-mean / std for mean, std in zip(self.mean, self.std, strict=True)]).to(images.device)
        # One pass over the batch: a fused multiply-add instead of scaling, subtracting and dividing.
        return torch.addcmul(shift.view(1, -1, 1, 1), images.float(), scale.view(1, -1, 1, 1))

    def split(self, name: str) -> Split:
        """Return the split called ``name``: train, validation or test."""
        split: Split = getattr(self, name)
        return split


def save_dataset(directory: Path, dataset: Dataset) -> None:
    """Write ``dataset`` to ``directory``, whole or not at all.

    Raises:
        InputError: images or labels break a rule of the format.
        OSError: the disk is full or not writable.
    """
    for name in SPLITS:
        check_split(name, dataset.split(name), len(dataset.classes))
    with new_directory(directory) as scratch:
        files = {}
        for name in SPLITS:
            split = dataset.split(name)
            path = scratch / f"{name}.safetensors"
            if isinstance(split.images, ShardedImages):
                write_tensors(path, index_of(split.images, split.labels))
            else:
                write_tensors(path, {"images": split.images.contiguous(), "labels": split.labels.contiguous()})
            files[path.name] = sha256(path)
        shards = described_shards({name: dataset.split(name).images for name in SPLITS}, scratch)
        given = {
            "resize": list(dataset.resize),
            "interpolation": dataset.interpolation,
            "skipped": dict(dataset.skipped),
            "shards": shards,
        }
        description = {
            "format_version": SHARDS_VERSION if shards else FORMAT_VERSION,
            "name": dataset.name,
            "classes": list(dataset.classes),
            "shape": list(dataset.shape),
            "mean": list(dataset.mean),
            "std": list(dataset.std),
            "splits": {name: len(dataset.split(name)) for name in SPLITS},
            "seed": dataset.seed,
            "source": dataset.source,
            "files": files,
            # Without the usual values, so that the digests of data sets without them stay.
            **{key: value for key, value in given.items() if value not in ([], BILINEAR, {})},
        }
        (scratch / "dataset.json").write_bytes(json_bytes(description))


def load_dataset(directory: Path, *, address: str = "") -> Dataset:
    """Read and verify the dataset in ``directory``; of shards only the index, and each shard when it is first used.

    Args:
        directory: of the artifact.
        address: where ``directory`` was copied from without its shards; empty: it is whole.

    Raises:
        ArtifactError: a missing or damaged file, an unknown format version, labels out of range.
    """
    description = read_description(directory / "dataset.json")
    verify_files(
        directory,
        description["files"],
        required=[f"{name}.safetensors" for name in SPLITS],
        own=("dataset.json", "manifest.json", *beside(description.get("shards"))),
    )
    place = place_of(description.get("shards"), directory, address)
    splits = {name: load_split(directory / f"{name}.safetensors", description, place) for name in SPLITS}
    return Dataset(
        name=description["name"],
        classes=tuple(description["classes"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        seed=description["seed"],
        source=description["source"],
        **splits,
        resize=tuple(description.get("resize", ())),
        interpolation=description.get("interpolation", BILINEAR),
        skipped=description.get("skipped", {}),
    )


def dataset_digest(directory: Path) -> str:
    """Return the digest that identifies this data set: that of dataset.json, which contains all others."""
    return sha256(directory / "dataset.json")


def _normalization(given: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if isinstance(given, str):
        return normalization_of(given, "", "")
    mean, std = (tuple(map(float, values)) for values in given)
    check_normalization(mean, std)
    return mean, std
