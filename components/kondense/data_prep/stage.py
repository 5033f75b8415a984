"""data_prep: read a data set, split it and write the Dataset artifact."""

import contextlib
import pkgutil
from pathlib import Path

from kondense.data.assembly import Rules
from kondense.data.collection import Source
from kondense.data.dataset import SPLITS, Dataset
from kondense.data.locate import opened
from kondense.data.picture import Geometry
from kondense.data_prep.config import SOURCES, DataPrepConfig
from kondense.logging import LOG


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
    dataset = read(config)
    dataset.save(dataset_dir)
    sizes = {f"{name}_images": float(len(dataset.split(name))) for name in SPLITS}
    skipped = {f"{reason}_images": float(count) for reason, count in dataset.skipped.items()}
    return {**sizes, "classes": float(len(dataset.classes)), **skipped}


def read(config: DataPrepConfig) -> Dataset:
    """Return the data set of ``config``."""
    source: Source = pkgutil.resolve_name(SOURCES[config.dataset_name])
    size = config.size or (source.image_size,) * 2 * bool(source.image_size)
    geometry = Geometry(size, config.channels, config.steps, config.interpolation)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(opened(config.source, source.wanted)) if config.source else None
        collection = source.collect(directory, geometry, config.max_pixels)
        LOG.info(f"data_prep: {config.dataset_name} from {config.source or collection.origin}")
        return Dataset.from_collection(
            collection,
            name=config.dataset_name,
            source=config.source or config.dataset_name,  # wherever the files were found, the data set is the same
            seed=config.seed,
            rules=Rules(geometry, config.normalised, config.max_bad, config.duplicates, strict=True),
            validation_size=config.validation_size,
            test_fraction=config.test_fraction,
            limit=config.limit,
        )
