"""One function per technique, on models and data in memory. Arguments are never changed."""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kondense.api.given import check_data, check_model
from kondense.api.parameters import configured, takes
from kondense.artifacts.model import Model, model_identity
from kondense.config import Config
from kondense.data.dataset import SPLITS, Dataset
from kondense.data.streamed import ShardedImages
from kondense.distill.config import DistillConfig
from kondense.distill.stage import distill as distill_model
from kondense.errors import InputError
from kondense.evaluate.config import EvaluateConfig
from kondense.evaluate.stage import Evaluated
from kondense.evaluate.stage import evaluate as evaluate_model
from kondense.logging import LOG
from kondense.processes import check_devices
from kondense.prune.config import PruneConfig
from kondense.prune.stage import prune as prune_model
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.stage import quantize as quantize_model
from kondense.train.config import TrainConfig
from kondense.train.stage import train as train_model
from kondense.training.checkpoint import checkpoints_at, open_checkpoint
from kondense.training.settings import TrainingConfig
from kondense.training.transform import Result, check_fits, for_weights, recorded

Method = str | Callable[..., Any]
TEACHERS = ("teacher", "teacher_2", "teacher_3")  # inputs of distill


@takes(TrainConfig, without=("network", "import_uri"))
def train(data: Dataset, network: str | Model = "lenet5", *, checkpoints: str | Path = "", **parameters: Any) -> Result:
    """Train a network from random weights, or a model from its own.

    Args:
        data: its training split is trained on, its validation split measured after every epoch.
        network: a built-in name, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:factory``; or a
            float model, which stays as it is.
        checkpoints: directory or URI that keeps the run's checkpoints: the same call continues a run that was stopped.
        **parameters: PARAMETERS

    Returns:
        ``.model``, ``.metrics`` and ``.curve``, one point per epoch.

    Raises:
        InputError: a parameter is out of range, or the network does not fit the images.
        NonFiniteLossError: training diverged.

    Example:
        >>> teacher = kd.train(data, "lenet300", epochs=1, learning_rate=0.02).model
        >>> teacher.network.name
        'lenet300'
    """
    if not isinstance(network, str):
        check_model("network", network)
    model = network if isinstance(network, Model) else None
    name = model.network.name if model else network
    config = configured(TrainConfig, {"network": name, **parameters})
    return apply("train", train_model, config, model, data, checkpoints=checkpoints)


@takes(PruneConfig, without=("method",))
def prune(
    model: Model,
    data: Dataset,
    *,
    method: Method = "l1",
    teacher: Model | None = None,
    checkpoints: str | Path = "",
    **parameters: Any,
) -> Result:
    """Remove weights or whole channels, and fine-tune what remains.

    Args:
        model: the network to prune; stays as it is.
        data: fine-tuning uses its training split.
        method: the name of a pruning method, or a score of your own: a function ``(module, groups)`` that ranks
            channels or ``(module, weights)`` that ranks weights (see ``kondense.prune.methods``).
        teacher: the model whose logits join the loss; the unpruned model by default.
        checkpoints: directory or URI that keeps the run's checkpoints: the same call continues a run that was stopped.
        **parameters: PARAMETERS

    Returns:
        ``.model``, ``.metrics``, ``.curve``, ``.details`` and ``.shortfall``: why the request was not met, or empty.

    Raises:
        InputError: the request names no layer, cannot be met, or does not fit the model.
        NonFiniteLossError: fine-tuning diverged.

    Example:
        >>> result = kd.prune(model, data, method="l1", sparsity=0.5, epochs=1)
        >>> result.metrics["macs"] <= 0.5 * result.metrics["macs_before"]
        True
    """
    config, own = _split(PruneConfig, method, parameters)
    return apply("prune", prune_model, config, model, data, teachers=_role(teacher), checkpoints=checkpoints, **own)


@takes(DistillConfig, without=("method",))
def distill(
    teacher: Model | Sequence[Model],
    data: Dataset,
    *,
    student: Model | None = None,
    method: str = "logits",
    checkpoints: str | Path = "",
    **parameters: Any,
) -> Result:
    """Train a small network, the student, on the labels and on the outputs of a large one, the teacher.

    Args:
        teacher: one to three models; the layers that some methods imitate are those of the first.
        data: its training split is trained on.
        student: the model to train on, such as a pruned one; by default the teacher's network at ``width``.
        method: the part of the loss beside the logits.
        checkpoints: directory or URI that keeps the run's checkpoints: the same call continues a run that was stopped.
        **parameters: PARAMETERS

    Returns:
        ``.model`` is the student; ``.metrics`` has its figures and, with ``_teacher``, those of the first teacher.

    Raises:
        InputError: a model does not fit the data, or the student cannot be built.
        NonFiniteLossError: training diverged.

    Example:
        >>> result = kd.distill(model, data, width=0.5, epochs=1)
        >>> result.metrics["parameters"] < result.metrics["parameters_teacher"]
        True
    """
    teachers = list(teacher) if isinstance(teacher, Sequence) and not isinstance(teacher, str) else [teacher]
    if not 1 <= len(teachers) <= len(TEACHERS):
        raise InputError(f"teacher must be one to {len(TEACHERS)} models, but got {len(teachers)}.")
    if student is not None:
        check_model("student", student)
    roles = dict(zip(TEACHERS, teachers, strict=False))
    config = configured(DistillConfig, {"method": method, **parameters})
    return apply("distill", distill_model, config, student, data, teachers=roles, checkpoints=checkpoints)


@takes(QuantizeConfig, without=("method",))
def quantize(
    model: Model,
    data: Dataset,
    *,
    method: Method = "static",
    teacher: Model | None = None,
    checkpoints: str | Path = "",
    **parameters: Any,
) -> Result:
    """Store weights, and with some methods compute activations, in few bits.

    Args:
        model: a float model; stays as it is.
        data: calibration and training use its training split.
        method: the name of a quantization method, or a quantizer of your own (see ``kondense.quantize.methods``).
        teacher: the model whose logits join the loss of methods that train; ``model`` itself by default.
        checkpoints: directory or URI that keeps the run's checkpoints: the same call continues a run that was stopped.
        **parameters: PARAMETERS

    Returns:
        ``.model``, ``.metrics``, ``.curve``, ``.details`` and ``.shortfall``: why the request was not met, or empty.

    Raises:
        InputError: the model is quantized already, has no layer to quantize, or a parameter does not fit.
        NonFiniteLossError: training diverged.

    Example:
        >>> small = kd.quantize(model, data, method="static", bits=8).model
        >>> sorted(small.quantized)[0]
        'fc1.weight'
    """
    config, own = _split(QuantizeConfig, method, parameters)
    return apply(
        "quantize", quantize_model, config, model, data, teachers=_role(teacher), checkpoints=checkpoints, **own
    )


@takes(EvaluateConfig)
def evaluate(model: Model, data: Dataset, *, teacher: Model | None = None, **parameters: Any) -> Evaluated:
    """Measure accuracy, size, latency and robustness of the model that would be deployed: its ONNX file.

    Args:
        model: the model to measure.
        data: the validation and test splits are measured.
        teacher: the model to compare with; latencies are timed in turns with it.
        **parameters: PARAMETERS

    Returns:
        ``.metrics`` by name, ``.evaluation`` with all details, ``.files`` (``model.onnx``, ``weights.kz``).

    Raises:
        InputError: the model does not fit the data, or its ONNX file disagrees with it.
        ArtifactError: ONNX cannot express the network.

    Example:
        >>> result = kd.evaluate(model, data, latency_seconds=0.05, further_latency_seconds=0, robustness_images=0)
        >>> result.metrics["bytes_kz"] < result.metrics["bytes_fp32"]
        True
    """
    for role, each in {"model": model, **_role(teacher)}.items():
        check_model(role, each)
    check_data(data)
    return evaluate_model(model, data, configured(EvaluateConfig, parameters), teacher=teacher)


def apply(
    stage: str,
    technique: Callable[..., Result],
    config: Config,
    model: Model | None,
    data: Dataset,
    *,
    teachers: Mapping[str, Model] | None = None,
    checkpoints: str | Path = "",
    **options: Any,
) -> Result:
    """Call a stage's pure function, resumable with ``checkpoints``, and add its record to the model's lineage.

    Raises:
        InputError: several devices, for which commands start processes; a function of the library does not.
    """
    if isinstance(config, TrainingConfig):
        check_devices(config.devices)
    models = ({"model": model} if model is not None else {}) | dict(teachers or {})
    check_data(data)
    for role, each in models.items():
        check_model(role, each)
        check_fits(role, each, data)
    config = for_weights(config, models.values()) if stage != "train" else config
    inputs = {"dataset": data_identity(data)} | {role: model_identity(each) for role, each in models.items()}
    if "method" in options:
        inputs["method"] = code_identity(options["method"])
    if "dataset_digest" in inspect.signature(technique).parameters:
        options["dataset_digest"] = inputs["dataset"]
    with checkpoints_at(checkpoints):
        networks = [each.network.name for each in models.values()]
        checkpoint = open_checkpoint(stage, config, inputs, networks) if checkpoints else None
    result = technique(model, data, config, teachers=dict(teachers or {}), checkpoint=checkpoint, **options)
    if result.shortfall:
        LOG.warning("%s", result.shortfall)
    return dataclasses.replace(result, model=recorded(stage, config, result, inputs, data))


def data_identity(data: Dataset) -> str:
    """Return the digest of a dataset's images, labels and normalisation."""
    digest = hashlib.sha256(repr((data.classes, data.mean, data.std)).encode())
    for name in SPLITS:
        split = data.split(name)
        if isinstance(split.images, ShardedImages):
            digest.update(split.images.digests.numpy().data)
        else:
            digest.update(split.images.contiguous().numpy().data)
        digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()


def code_identity(function: Callable[..., Any]) -> str:
    """Return the digest of a function's source: a changed one does not continue the checkpoints of the earlier one.

    Raises:
        InputError: there is no source.
    """
    code = function if inspect.isroutine(function) or isinstance(function, type) else type(function)
    try:
        return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()
    except (OSError, TypeError):
        raise InputError(f"method must be a function with source code, but {function!r} has none.") from None


def _split(config: type[Any], method: Method, parameters: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the Config and, where the method is the caller's own, the option that hands it over."""
    if isinstance(method, str):
        return configured(config, {"method": method, **parameters}), {}
    if not callable(method):
        raise InputError(f"method must be a name or a function, but got {method!r}.")
    return configured(config, parameters), {"method": method}


def _role(teacher: Model | None) -> dict[str, Model]:
    return {} if teacher is None else {"teacher": teacher}
