"""Make what the Experiments start from, in the object store: a Job of manifests/inputs.

A data set is prepared and a teacher trained once, and left alone when they are there. Killed, the next attempt goes on
from the training's checkpoint (KONDENSE_CHECKPOINTS). Nothing half-written is taken for whole: the file by which trials
know an artifact comes last.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from kondense.data_prep.config import DATASETS, DataPrepConfig
from kondense.errors import InputError
from kondense.networks.names import check_form
from kondense.store.open import open_store
from kondense.store.store import Store
from kondense.train.config import TrainConfig

from kondense_pipelines.deploy import job

DATASET_FILE, MODEL_FILE = "dataset.json", "model.json"  # the file that makes an artifact whole
EPOCHS = 8  # of a teacher, as in the quick profile


def ensure(datasets: Sequence[str], teachers: Sequence[str]) -> Iterator[str]:
    """Make what is missing and say what was done.

    Args:
        datasets: ``NAME=URI`` texts: a data set that data_prep knows, and where its artifact goes.
        teachers: ``NETWORK=URI`` texts: a network to train on the first data set, and where its model goes.

    Raises:
        ValueError: a text of another form, an unknown name, or a teacher without a data set.
        OSError: the files of the data set are nowhere to be had, or the object store cannot be reached.
    """
    wanted = [_pair("--dataset", text) for text in datasets]
    for name, _ in wanted:
        DataPrepConfig(dataset_name=name)
    networks = [_pair("--teacher", text) for text in teachers]
    for network, _ in networks:
        check_form(network)
    if networks and not wanted:
        raise InputError(f"--teacher needs a --dataset to train on, such as {DATASETS[0]}=minio://bucket/prefix.")
    for name, uri in wanted:
        yield from _make(f"data set {name}", open_store(uri), DATASET_FILE, partial(_prepare, name))
    for network, uri in networks:
        data = open_store(wanted[0][1])
        yield from _make(f"teacher {network}", open_store(uri), MODEL_FILE, partial(_train, network, data))


def _pair(option: str, text: str) -> tuple[str, str]:
    name, _, uri = text.partition("=")
    if not name or not uri:
        raise InputError(f"{option} must be NAME=URI, such as {DATASETS[0]}=minio://bucket/prefix, but got {text!r}.")
    return name, uri


def _make(what: str, store: Store, last: str, make: Callable[[Path], None]) -> Iterator[str]:
    """Let ``make`` write an artifact's directory and put it into the store, unless it is there."""
    if store.exists(last):
        yield f"{what}: it is there, {store.uri}"
        return
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made"
        make(made)
        for path in sorted(made.iterdir(), key=lambda path: path.name == last):
            store.upload_file(path.name, path)
    yield f"{what}: made, {store.uri}"


def _prepare(name: str, directory: Path) -> None:
    from kondense.data_prep.stage import run

    run(DataPrepConfig(dataset_name=name), dataset_dir=directory)


def _train(network: str, data: Store, directory: Path) -> None:
    from kondense.train.stage import run

    with tempfile.TemporaryDirectory() as scratch:
        data.download_artifact(Path(scratch))
        run(TrainConfig(network=network, epochs=EPOCHS), dataset_dir=Path(scratch), model_dir=directory)


def main() -> int:
    """Run the Job."""
    parser = argparse.ArgumentParser(prog="python -m kondense_pipelines.deploy.inputs", description=__doc__)
    parser.add_argument("--dataset", action="append", default=[], metavar="NAME=URI", help=", ".join(DATASETS[:-1]))
    parser.add_argument("--teacher", action="append", default=[], metavar="NETWORK=URI", help="trained on the first")
    options = parser.parse_args()
    return job.run(lambda: ensure(options.dataset, options.teacher))


if __name__ == "__main__":
    sys.exit(main())
