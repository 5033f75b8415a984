"""A Katib trial: the stages of one set of hyperparameters in one process.

On several nodes, of a TrainJob or a PyTorchJob, all train the teacher together; then the first one takes the steps of
the recipe, reports and keeps the model, and the others end.

Checkpoints are kept in the object store under keys made of all hyperparameters but the resource, so a promoted trial
continues the run of the trial that it was promoted from.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch.nn.functional as F

from kondense import launch
from kondense.artifacts.model import Model, load_model
from kondense.codec.model_file import pack_model
from kondense.data.dataset import Dataset, load_dataset
from kondense.data.description import read_description
from kondense.data.shard_index import FOLDER
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.networks.allowed import allowing
from kondense.recipes import models_of
from kondense.scratch import scratch_directory
from kondense.stages import STAGES
from kondense.store.open import open_store
from kondense.training.checkpoint import checkpoints_at
from kondense.training.fit import epochs_reported_to
from kondense.trial.config import TrialConfig
from kondense.trial.push import report
from kondense.trial.reason import failure_key, keep_reason
from kondense.trial.score import score


def run(config: TrialConfig) -> dict[str, float]:
    """Run the stages of the recipe, report the metrics, and keep the model.

    Returns:
        ``validation_accuracy`` (fraction), ``validation_loss`` (nats), ``seconds`` of wall time, and of those that are
        reported: ``size_bytes`` (entropy-coded), ``latency_ms`` (batch 1, one thread, onnxruntime), ``score``. Of
        several nodes only the first returns any.

    Raises:
        InputError: the data or the teacher does not fit, or a step of the recipe is impossible for the network.
        NonFiniteLossError: training diverged.
        StoreError: the object store could not be reached, after several attempts.
    """
    try:
        metrics = _run(config)
        if metrics:
            report({name: metrics[name] for name in config.reported})
    except launch.OthersLostError:
        raise  # the node that failed tells why
    except Exception as error:
        keep_reason(config.store_uri, config.trial_name, error)
        raise
    return metrics


def _run(config: TrialConfig) -> dict[str, float]:
    started = time.monotonic()
    nodes = launch.nodes_of(os.environ, config.trial_name)
    _check_devices(config, nodes)
    with (
        scratch_directory("trial") as scratch,
        checkpoints_at(f"{config.store_uri}/checkpoints" if config.store_uri else ""),
        allowing(networks=[config.train.network]),
    ):
        dataset_dir = fetch(config.dataset_uri, scratch / "dataset", "dataset.json")
        if config.steps:  # what cannot be done after the training is refused before it
            from kondense.preflight.examine import check_steps  # imports every stage

            described = read_description(dataset_dir / "dataset.json")
            channels, height, width = described["shape"]
            check_steps(config.train, config.steps, (channels, height, width), len(described["classes"]))
        with _epochs_reported(config):
            model_dir = compress(config, dataset_dir, scratch, nodes)
        if model_dir is None:
            return {}
        metrics = measure(config, load_model(model_dir), load_dataset(dataset_dir))
        metrics["seconds"] = time.monotonic() - started
        if config.store_uri:
            # A restarted trial produces an equal model, but its lineage may name newer libraries.
            store = open_store(config.store_uri)
            store.upload_directory(f"trials/{config.trial_name}", model_dir, replace=True)
            store.delete(failure_key(config.trial_name))
    return metrics


def _check_devices(config: TrialConfig, nodes: launch.Nodes | None) -> None:
    """Raise InputError for what several nodes cannot share, or if epochs are to be reported that others train."""
    if nodes and not config.train.trains:
        raise InputError(
            "a trial must train its network on several nodes, which take no part in pruning, distillation and"
            f" quantization, but starts from {config.teacher_uri or config.train.network} on {nodes.count}; numNodes: 1"
            " runs it on one."
        )
    if nodes and config.train.compile:
        raise InputError(f"train.compile must be false on several nodes, but got true on {nodes.count}.")
    count = max(map(launch.count_processes, (config.train, *(step.config for step in config.steps))))
    count = max(count, nodes.count if nodes else 1)
    if config.report_epochs and count > 1:
        raise InputError(
            f"report_epochs must be false where a stage trains in several processes, but got true with {count} devices;"
            " devices=1 on one node trains in one."
        )


def compress(config: TrialConfig, dataset_dir: Path, scratch: Path, nodes: launch.Nodes | None = None) -> Path | None:
    """Train or import the teacher, run the steps of the recipe, and return the directory of the last model.

    None on all nodes but the first.
    """
    model_dir = teacher_dir = scratch / "train"
    launch.run(STAGES["train"], config.train, {"dataset_dir": dataset_dir, "model_dir": teacher_dir}, nodes=nodes)
    if nodes and nodes.rank:
        return None
    for number, step in enumerate(config.steps, start=1):
        output_dir = scratch / f"{number}-{step.stage}"
        models = {f"{name}_dir": path for name, path in models_of(step.stage, model_dir, teacher_dir).items()}
        outputs = {f"{STAGES[step.stage].outputs[0].name}_dir": output_dir}
        launch.run(STAGES[step.stage], step.config, {"dataset_dir": dataset_dir, **models, **outputs})
        model_dir = output_dir
    return model_dir


@contextlib.contextmanager
def _epochs_reported(config: TrialConfig) -> Iterator[None]:
    """Report the validation accuracy of every epoch in the block to Katib, if the configuration says so."""
    if not config.report_epochs or "validation_accuracy" not in config.reported:
        yield
        return

    def report_epoch(point: Mapping[str, float]) -> None:
        try:
            report({"validation_accuracy": point["validation_accuracy"]}, pauses_s=())
        except ConnectionError as error:
            LOG.info(f"this epoch is missing in Katib's chart: {error}")

    with epochs_reported_to(report_epoch):
        yield


def measure(config: TrialConfig, model: Model, dataset: Dataset) -> dict[str, float]:
    """Return the metrics of a model on the validation split; size and latency, which take seconds, if they count."""
    logits_NK = predict(model.module, dataset.validation, dataset)
    validation_accuracy = accuracy(logits_NK, dataset.validation.labels)
    metrics = {
        "validation_accuracy": validation_accuracy,
        "validation_loss": float(F.cross_entropy(logits_NK, dataset.validation.labels)),
    }
    if config.counts("size_bytes"):
        metrics["size_bytes"] = float(len(pack_model(model)))
    if config.counts("latency_ms"):
        from kondense.export.onnx import export_onnx
        from kondense.measuring.latency import measure_latency, open_session

        images_NCHW = dataset.normalise(dataset.validation.images[:1]).numpy()
        sessions = {"model": open_session(export_onnx(model, dataset))}
        metrics["latency_ms"] = measure_latency(sessions, images_NCHW, seconds=0.5)["model"].median_ms
    if config.counts("score"):
        metrics["score"] = score(
            config, validation_accuracy, metrics.get("size_bytes", 0.0), metrics.get("latency_ms", 0.0)
        )
    return metrics


def fetch(uri: str, directory: Path, name: str) -> Path:
    """Return a local directory of the artifact at ``uri``: its own if it is a local path, else ``directory``.

    Raises:
        InputError: there is no file ``name`` at ``uri``.
    """
    if "://" not in uri and (Path(uri) / name).is_file():
        return Path(uri)
    store = open_store(uri)
    if not store.exists(name):
        raise InputError(
            f"{uri} must be an artifact with a file {name}, but there is none. On a cluster the Job kondense-inputs "
            "makes the artifacts that the Experiments name (kubectl -n kubeflow logs job/kondense-inputs)."
        )
    store.download_artifact(directory)
    for key in store.list(FOLDER):  # of a data set that has its shards with it
        (directory / FOLDER).mkdir(exist_ok=True)
        store.download_file(key, directory / key)
    return directory
