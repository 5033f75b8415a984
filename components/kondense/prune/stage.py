"""Prune a network in steps, with fine-tuning after each."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from kondense.artifacts.lineage import stage_record
from kondense.artifacts.model import Model, load_model, model_digest, save_model
from kondense.data.dataset import Dataset, dataset_digest, load_dataset
from kondense.errors import InputError, ShortfallError
from kondense.prune import greedy
from kondense.prune.accuracy_bound import floor_of, largest_sparsity, shortfall_of
from kondense.prune.config import PruneConfig
from kondense.prune.loop import drive
from kondense.prune.masks import constrained, lottery, magnitude, nm, random, taylor
from kondense.prune.method import Method
from kondense.prune.metrics import layer_sparsity, measure, summary
from kondense.prune.request import Request, resolve
from kondense.prune.scores import bn_scale, fpgm, l1, l2, taylor_channel
from kondense.prune.sensitivity import scan, scanned_layers
from kondense.training.checkpoint import open_checkpoint
from kondense.training.losses import Loss, SoftLabelLoss

METHODS: dict[str, Callable[[nn.Module, Request], Method]] = {
    "bn_scale": bn_scale.prepare,
    "constrained": constrained.prepare,
    "fpgm": fpgm.prepare,
    "greedy": greedy.prepare,
    "l1": l1.prepare,
    "l2": l2.prepare,
    "lottery": lottery.prepare,
    "magnitude": magnitude.prepare,
    "nm": nm.prepare,
    "random": random.prepare,
    "taylor": taylor.prepare,
    "taylor_channel": taylor_channel.prepare,
}


def run(
    config: PruneConfig, *, dataset_dir: Path, model_dir: Path, pruned_dir: Path, teacher_dir: Path | None = None
) -> dict[str, float]:
    """Prune the model and write the result as a model artifact.

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact; its training split is fine-tuned on.
        model_dir: the Model artifact to prune.
        pruned_dir: where the pruned Model artifact goes.
        teacher_dir: a Model artifact whose logits join the fine-tuning loss, instead of those of the unpruned model.

    Returns:
        ``validation_accuracy`` with ``_before`` and ``_untuned`` (right after the last removal, or after all at once
        where weights go little by little), ``sparsity``
        (fraction of the weights that are gone or zero), ``parameters``, ``macs``, and both ``_before``.

    Raises:
        ValueError: the request names no layer, cannot be met, or does not fit the model.
        ShortfallError: the artifact is written, but it is only the closest to what was asked for.
        NonFiniteLossError: fine-tuning diverged.
    """
    dataset, model = load_dataset(dataset_dir), load_model(model_dir)
    inputs = {"dataset": dataset_digest(dataset_dir), "model": model_digest(model_dir)}
    if model.quantized or model.activations:
        raise InputError(f"a model must be pruned before it is quantized, but {model_dir} is quantized.")
    check_fits("model", model, dataset)
    teacher = None
    if teacher_dir is not None:
        inputs["teacher"], teacher = model_digest(teacher_dir), load_model(teacher_dir)
        check_fits("teacher", teacher, dataset)
    loss = _loss(teacher or load_model(model_dir), dataset, config) if config.alpha else None
    request = resolve(
        config,
        model,
        dataset,
        loss,
        open_checkpoint("prune", config, inputs),
        dataset_digest=inputs["dataset"],
    )
    request = dataclasses.replace(request, floor=floor_of(request, model.module, teacher.module if teacher else None))
    outcome = _prune(model, request)
    metrics = measure(model, outcome.pruned, dataset, request.device) | {
        "validation_accuracy_untuned": outcome.steps[-1]["untuned"]
    }
    details: dict[str, Any] = {"layers": layer_sparsity(model.module, outcome.pruned.module), "steps": outcome.steps}
    record = stage_record(
        "prune",
        config,
        inputs=inputs,
        metrics=metrics,
        summary=summary(config, metrics, taught=teacher_dir is not None),
        curves=request.curve,
        details=details | outcome.details,
    )
    save_model(pruned_dir, dataclasses.replace(outcome.pruned, lineage=(*model.lineage, record)))
    if outcome.shortfall:
        raise ShortfallError(outcome.shortfall)
    return metrics


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A pruned model, a figure per step, the method's own details and what it did not reach."""

    pruned: Model
    steps: list[dict[str, float]]
    details: dict[str, Any]
    shortfall: str


def _prune(model: Model, request: Request) -> Outcome:
    module, prepare = copy.deepcopy(model.module), METHODS[request.config.method]
    method, details = prepare(module, request), {}
    if request.config.sensitivity:
        details["sensitivity"] = scan(prepare, module, request, scanned_layers(method))
    if request.floor and request.config.method != "greedy":  # which looks at the floor itself
        sparsity, details["bound"] = largest_sparsity(prepare, module, request)
        request = dataclasses.replace(request, config=dataclasses.replace(request.config, sparsity=sparsity))
        method = prepare(module, request)
    masks, history = drive(module, method, request, model.network)
    pruned = dataclasses.replace(model, module=module, masked=tuple(sorted(masks)))
    shortfall = method.shortfall() or shortfall_of(request, history[-1]["validation_accuracy"])
    return Outcome(pruned, history, details | method.details(), shortfall)


def _loss(teacher: Model, dataset: Dataset, config: PruneConfig) -> Loss:
    return SoftLabelLoss(
        teacher.module,
        temperature=config.temperature,
        alpha=config.alpha,
        label_smoothing=config.label_smoothing,
        unchanged=dataset if config.augment == "none" else None,
    )
