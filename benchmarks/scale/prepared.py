"""Generated photographs as a Dataset artifact, made once per directory."""

from pathlib import Path

from kondense.data.dataset import Dataset, load_dataset
from kondense.data_prep.config import DataPrepConfig
from kondense.data_prep.stage import run

from benchmarks.scale.photos import CROP, SIDE, make_photographs


def prepared(directory: Path, count: int, storage: str, encoding: str = "ppm") -> Dataset:
    """Return the data set of ``count`` photographs, in tensors or shards; nine tenths and more are training images."""
    return load_dataset(prepared_directory(directory, count, storage, encoding))


def prepared_directory(directory: Path, count: int, storage: str, encoding: str = "ppm", among: int = 0) -> Path:
    """Return the directory of its artifact; the photographs are the first of ``among``."""
    made = directory / f"data-{count}-{storage}-{encoding}"
    if not made.exists():
        config = DataPrepConfig(
            dataset_name="folder",
            source=str(make_photographs(directory, among or count)),
            limit=count,
            image_size=CROP,
            resize=SIDE,
            channels=3,
            test_fraction=0.02,
            validation_size=max(20, count // 50),
            storage=storage,
            shard_encoding=encoding,
        )
        run(config, dataset_dir=made)
    return made
