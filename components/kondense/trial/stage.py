"""A Katib trial: the other stages composed in one process for one set of hyperparameters.

Checkpoints lie in the object store under keys made of all hyperparameters but the resource, so a promoted
trial continues the run of the trial it was promoted from.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch.nn.functional as F

from kondense.artifacts.model import Model, load_model
from kondense.codec.model_file import pack_model
from kondense.data.dataset import Dataset, load_dataset
from kondense.distill.config import DistillConfig
from kondense.distill.stage import run as distill
from kondense.errors import InputError
from kondense.export.onnx import export_onnx
from kondense.logging import LOG
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.latency import measure_latency, open_session
from kondense.networks.allowed import allowing
from kondense.prune.config import PruneConfig
from kondense.prune.stage import run as prune
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import run as quantize
from kondense.store.store import open_store
from kondense.train.config import TrainConfig
from kondense.train.stage import run as train
from kondense.training.checkpoint import checkpoints_at
from kondense.training.fit import epochs_told_to
from kondense.trial.config import TrialConfig
from kondense.trial.push import report
from kondense.trial.reason import failure_key, keep_reason
from kondense.trial.recipe import parse_recipe
from kondense.trial.score import score


def run(config: TrialConfig) -> dict[str, float]:
    """Go through the recipe's stages, report the metrics, and keep the model.

    Returns:
        ``validation_accuracy`` (fraction), ``validation_loss`` (nats), ``size_bytes`` (entropy-coded),
        ``latency_ms`` (batch 1, one thread, onnxruntime), ``score``, and ``seconds`` of wall time.

    Raises:
        ValueError: a hyperparameter is out of range, or the data or the teacher does not fit.
        NonFiniteLossError: training diverged.
        StoreError: the object store could not be reached, after several attempts.
    """
    try:
        metrics = _run(config)
        report({name: metrics[name] for name in config.reported})
    except Exception as error:
        keep_reason(config.store_uri, config.trial_name, error)
        raise
    return metrics


def _run(config: TrialConfig) -> dict[str, float]:
    started = time.monotonic()
    configs = stage_configs(config)
    steps = [(step.stage, configs[step.stage].updated(step.settings)) for step in parse_recipe(config.recipe)]
    with (
        _scratch() as scratch,
        checkpoints_at(f"{config.store_uri}/checkpoints" if config.store_uri else ""),
        _epochs_reported(config),
        allowing(networks=[config.network]),
    ):
        dataset_dir = fetch(config.dataset_uri, scratch / "dataset", "dataset.json")
        model_dir = scratch / "train"
        train(configs["train"], dataset_dir=dataset_dir, model_dir=model_dir)
        for number, (stage, stage_config) in enumerate(steps, start=1):
            output_dir = scratch / f"{number}-{stage}"
            STEPS[stage](stage_config, dataset_dir, model_dir, scratch / "train", output_dir)
            model_dir = output_dir
        metrics = measure(config, load_model(model_dir), load_dataset(dataset_dir))
        metrics["seconds"] = time.monotonic() - started
        if config.store_uri:
            # A restarted trial ends with an equal model, but perhaps under newer libraries, which its lineage tells.
            store = open_store(config.store_uri)
            store.upload_directory(f"trials/{config.trial_name}", model_dir, replace=True)
            store.delete(failure_key(config.trial_name))
    return metrics


@contextlib.contextmanager
def _epochs_reported(config: TrialConfig) -> Iterator[None]:
    """Report the validation accuracy of every epoch in the block, where Katib is to be told of them."""
    if not config.report_epochs or "validation_accuracy" not in config.reported:
        yield
        return

    def tell(point: Mapping[str, float]) -> None:
        try:
            report({"validation_accuracy": point["validation_accuracy"]}, pauses_s=())
        except ConnectionError as error:
            LOG.info(f"this epoch is missing in Katib's chart: {error}")

    with epochs_told_to(tell):
        yield


def _prune(config: PruneConfig, dataset_dir: Path, model_dir: Path, teacher_dir: Path, output_dir: Path) -> None:
    prune(config, dataset_dir=dataset_dir, model_dir=model_dir, teacher_dir=teacher_dir, pruned_dir=output_dir)


def _distill(config: DistillConfig, dataset_dir: Path, model_dir: Path, teacher_dir: Path, output_dir: Path) -> None:
    student = {} if model_dir == teacher_dir else {"model_dir": model_dir}
    distill(config, dataset_dir=dataset_dir, teacher_dir=teacher_dir, student_dir=output_dir, **student)


def _quantize(config: QuantizeConfig, dataset_dir: Path, model_dir: Path, teacher_dir: Path, output_dir: Path) -> None:
    quantize(config, dataset_dir=dataset_dir, model_dir=model_dir, teacher_dir=teacher_dir, quantized_dir=output_dir)


STEPS: dict[str, Callable[..., None]] = {"prune": _prune, "distill": _distill, "quantize": _quantize}


def stage_configs(config: TrialConfig) -> dict[str, TrainConfig | PruneConfig | DistillConfig | QuantizeConfig]:
    """Return the Config of every stage, so that a bad hyperparameter fails before any work."""
    shared = {
        "batch_size": config.batch_size,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "schedule": config.schedule,
        "label_smoothing": config.label_smoothing,
        "augment": config.augment,
        "averaging": config.averaging,
        "learning_rate": config.lr,
        "device": config.device,
        "seed": config.seed,
    }
    resource = {"epochs": config.epochs, "max_epochs": config.max_epochs, "warmup_epochs": config.warmup_epochs}
    tuning = resource if config.teacher_uri else {"epochs": config.tune_epochs, "warmup_epochs": config.warmup_epochs}
    softness = {"temperature": config.temperature, "alpha": config.alpha}
    return {
        "train": TrainConfig(
            **shared, **resource, network=config.network, width=config.width, import_uri=config.teacher_uri
        ),
        "prune": PruneConfig(
            **shared,
            **tuning,
            **softness,
            method=config.prune_method,
            sparsity=config.sparsity,
            layers=config.layers,
            pruning_schedule=config.pruning_schedule,
            steps=config.pruning_steps,
        ),
        "distill": DistillConfig(**shared, **tuning, **softness, width=config.student_width),
        "quantize": QuantizeConfig(method=config.quantize_method, bits=config.bits, seed=config.seed),
    }


def measure(config: TrialConfig, model: Model, dataset: Dataset) -> dict[str, float]:
    """Return the metrics of a model on the validation split."""
    logits_NK = predict(model.module, dataset.validation, dataset)
    found = accuracy(logits_NK, dataset.validation.labels)
    size_bytes = float(len(pack_model(model)))
    images_NCHW = dataset.normalise(dataset.validation.images[:1]).numpy()
    sessions = {"model": open_session(export_onnx(model, dataset))}
    latency_ms = measure_latency(sessions, images_NCHW, seconds=0.5)["model"].median_ms
    return {
        "validation_accuracy": found,
        "validation_loss": float(F.cross_entropy(logits_NK, dataset.validation.labels)),
        "size_bytes": size_bytes,
        "latency_ms": latency_ms,
        "score": score(config, found, size_bytes, latency_ms),
    }


def fetch(uri: str, directory: Path, name: str) -> Path:
    """Return a local directory that holds the artifact at ``uri``: its own when it is a path.

    Raises:
        ValueError: there is no file ``name`` at ``uri``.
    """
    if "://" not in uri and (Path(uri) / name).is_file():
        return Path(uri)
    store = open_store(uri)
    if not store.exists(name):
        raise InputError(
            f"{uri} must be an artifact with a file {name}, but there is none. On a cluster the Job kondense-inputs "
            "makes what the Experiments name (kubectl -n kubeflow logs job/kondense-inputs)."
        )
    store.download_artifact(directory)
    return directory


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kondense-trial-") as path:
        yield Path(path)
