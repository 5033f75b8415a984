"""Create the inputs of the Experiments in the object store: a Job of manifests/inputs.

Data sets are prepared and teachers trained unless they exist. After a kill, the next attempt continues from the
training's checkpoint (KONDENSE_CHECKPOINTS). A partial artifact is never used: the file by which trials recognise an
artifact is written last.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from kondense.data_prep.config import DATASETS, DataPrepConfig
from kondense.errors import InputError
from kondense.networks.names import check_form
from kondense.scratch import scratch_directory
from kondense.store.open import open_store
from kondense.store.store import Store
from kondense.train.config import TrainConfig

from kondense_pipelines.deploy import job

DATASET_FILE, MODEL_FILE = "dataset.json", "model.json"  # the file of an artifact that is written last


def ensure(datasets: Sequence[str], teachers: Sequence[str]) -> Iterator[str]:
    """Create the missing artifacts and yield a line about each.

    Args:
        datasets: ``NAME=URI`` texts: a data set of data_prep, and the address of its artifact.
        teachers: ``NETWORK=URI`` texts: a network to train on the first data set, and the address of its model.

    Raises:
        InputError: a text of another form, an unknown name, or a teacher without a data set.
        OSError: the files of the data set are not available, or the object store cannot be reached.
    """
    sources = [_pair("--dataset", text) for text in datasets]
    for name, _ in sources:
        DataPrepConfig(dataset_name=name)
    networks = [_pair("--teacher", text) for text in teachers]
    for network, _ in networks:
        check_form(network)
    if networks and not sources:
        raise InputError(f"--teacher needs a --dataset to train on, such as {DATASETS[0]}=minio://bucket/prefix.")
    for name, uri in sources:
        yield from _make(f"data set {name}", open_store(uri), DATASET_FILE, partial(_prepare, name))
    for network, uri in networks:
        data = open_store(sources[0][1])
        yield from _make(f"teacher {network}", open_store(uri), MODEL_FILE, partial(_train, network, data))


def _pair(option: str, text: str) -> tuple[str, str]:
    name, _, uri = text.partition("=")
    if not name or not uri:
        raise InputError(f"{option} must be NAME=URI, such as {DATASETS[0]}=minio://bucket/prefix, but got {text!r}.")
    return name, uri


def _make(artifact: str, store: Store, last: str, make: Callable[[Path], None]) -> Iterator[str]:
    """Let ``make`` write an artifact's directory and upload it, the file ``last`` last, unless that exists."""
    if store.exists(last):
        yield f"{artifact}: exists, {store.uri}"
        return
    with scratch_directory("inputs") as scratch:
        made = scratch / "made"
        make(made)
        for path in sorted(made.iterdir(), key=lambda path: path.name == last):
            store.upload_file(path.name, path)
    yield f"{artifact}: created, {store.uri}"


def _prepare(name: str, directory: Path) -> None:
    from kondense.data_prep.stage import run

    run(DataPrepConfig(dataset_name=name), dataset_dir=directory)


def _train(network: str, data: Store, directory: Path) -> None:
    from kondense.train.stage import run

    with scratch_directory("inputs") as scratch:
        data.download_artifact(scratch)
        run(TrainConfig(network=network), dataset_dir=scratch, model_dir=directory)


def main() -> int:
    """Run the Job."""
    parser = argparse.ArgumentParser(prog="python -m kondense_pipelines.deploy.inputs", description=__doc__)
    parser.add_argument("--dataset", action="append", default=[], metavar="NAME=URI", help=", ".join(DATASETS[:-1]))
    parser.add_argument("--teacher", action="append", default=[], metavar="NETWORK=URI", help="trained on the first")
    options = parser.parse_args()
    return job.run(lambda: ensure(options.dataset, options.teacher))


if __name__ == "__main__":
    sys.exit(main())
