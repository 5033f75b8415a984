"""data_prep: read a data set, split it and write the Dataset artifact."""

import contextlib
import os
import pkgutil
from pathlib import Path

from kondense.data.assembly import Rules, decoded_bytes
from kondense.data.collection import Collection, Source
from kondense.data.dataset import SPLITS, Dataset
from kondense.data.locate import opened
from kondense.data.picture import Geometry
from kondense.data.pieces import opened_in_pieces
from kondense.data.shard_assembly import Target
from kondense.data_prep.config import AUTO, BUCKETS, PNG, SOURCES, DataPrepConfig
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.scratch import scratch_directory

PLACE = "KONDENSE_SHARDS"  # environment variable


def run(config: DataPrepConfig, *, dataset_dir: Path) -> dict[str, float]:
    """Write the data set of ``config`` to ``dataset_dir``, whole or not at all.

    The same arguments give the same bytes, wherever the files were found.

    Returns:
        The number of images of each split and of classes, and of the images left out, if any.

    Raises:
        SourceError: the files were not found; the text names the ways to provide them.
        InputError: a file is damaged, or the images do not make a data set.
        OSError: a file cannot be read, or the disk is full.
    """
    dataset_dir.parent.mkdir(parents=True, exist_ok=True)
    # Beside the artifact, whose files the shards become by links.
    with scratch_directory("shards", beside=dataset_dir) as scratch:
        dataset = read(config, scratch)
        dataset.save(dataset_dir)
    sizes = {f"{name}_images": float(len(dataset.split(name))) for name in SPLITS}
    skipped = {f"{reason}_images": float(count) for reason, count in dataset.skipped.items()}
    return {**sizes, "classes": float(len(dataset.classes)), **skipped}


def read(config: DataPrepConfig, scratch: Path) -> Dataset:
    """Return the data set of ``config``; its shards, if it has any, are in ``scratch`` or where the config says."""
    source: Source = pkgutil.resolve_name(SOURCES[config.dataset_name])
    size = config.size or (source.image_size,) * 2 * bool(source.image_size)
    geometry = Geometry(size, config.channels, config.steps, config.interpolation)
    with contextlib.ExitStack() as stack:
        if config.source and source.in_pieces:
            directory, bring = stack.enter_context(opened_in_pieces(config.source, source.wanted))
            collection = source.collect(directory, geometry, config.max_pixels, bring)
        else:
            files = stack.enter_context(opened(config.source, source.wanted)) if config.source else None
            collection = source.collect(files, geometry, config.max_pixels)
        LOG.info(f"data_prep: {config.dataset_name} from {config.source or collection.origin}")
        return Dataset.from_collection(
            collection,
            name=config.dataset_name,
            source=config.source or config.dataset_name,  # wherever the files were found, the data set is the same
            seed=config.seed,
            rules=Rules(geometry, config.normalised, config.max_bad, config.duplicates, strict=True),
            target=_target(config, collection, geometry, scratch),
            validation_size=config.validation_size,
            test_fraction=config.test_fraction,
            limit=config.limit,
        )


def _target(config: DataPrepConfig, collection: Collection, geometry: Geometry, scratch: Path) -> Target | None:
    """Return where shards go; None if the images are kept as tensors."""
    needed = decoded_bytes(collection, geometry, config.limit)
    if not config.in_shards(needed):
        return None
    if config.storage == AUTO:
        LOG.info(f"data_prep: {needed:,} bytes of images are more than max_tensor_bytes, so they are kept as shards")
    if config.shard_encoding == PNG:
        LOG.info("data_prep: png shards take longer to decode than JPEG files; shard_encoding=ppm is faster than both")
    address = config.shards_at or shards_address()
    return Target(scratch, address, config.shard_bytes, config.shuffle_bytes, config.shard_encoding)


def shards_address() -> str:
    """Return the address of shards that KONDENSE_SHARDS gives, such as ``minio://bucket/prefix``; empty if none.

    Shards are named by their content, so data sets may share an address.

    Raises:
        InputError: it is no address of a bucket.
    """
    text = os.environ.get(PLACE, "")
    if text and not text.startswith(BUCKETS):
        raise InputError(f"{PLACE} must be s3://bucket/prefix or minio://bucket/prefix, but got {text}.")
    return text
