"""Prune a network in steps, with fine-tuning after each."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from kondense.artifacts.equivalence import probes
from kondense.artifacts.model import Model
from kondense.artifacts.separation import separate_attention
from kondense.data.dataset import Dataset, dataset_digest
from kondense.logging import LOG
from kondense.prune import channels
from kondense.prune.accuracy_bound import floor_of, largest_sparsity, shortfall_of
from kondense.prune.config import AUTO_OPTIMIZERS, PruneConfig
from kondense.prune.context import Context, make_session, resolve
from kondense.prune.loop import iterate
from kondense.prune.masks import masks
from kondense.prune.methods import METHODS, bind, kind_of
from kondense.prune.metrics import layer_sparsity, measure, summary
from kondense.prune.pruner import Prepare, Pruner
from kondense.prune.sensitivity import scan, scanned_layers
from kondense.training.checkpoint import Checkpoint
from kondense.training.losses import teacher_loss
from kondense.training.transform import Result, check_fits, check_float, copied, run_transform


def run(
    config: PruneConfig, *, dataset_dir: Path, model_dir: Path, pruned_dir: Path, teacher_dir: Path | None = None
) -> dict[str, float]:
    """Prune a model artifact (see ``prune``).

    Args:
        config: the parameters.
        dataset_dir: a Dataset artifact.
        model_dir: the Model artifact to prune.
        pruned_dir: directory of the pruned Model artifact.
        teacher_dir: the Model artifact of a teacher.

    Returns:
        The metrics.
    """
    return run_transform(
        "prune",
        config,
        functools.partial(prune, dataset_digest=dataset_digest(dataset_dir)),
        dataset_dir=dataset_dir,
        model_dir=model_dir,
        output_dir=pruned_dir,
        teacher_dirs={"teacher": teacher_dir} if teacher_dir else {},
    )


def prune(
    model: Model,
    dataset: Dataset,
    config: PruneConfig,
    *,
    teachers: Mapping[str, Model] | None = None,
    checkpoint: Checkpoint | None = None,
    method: Callable[..., Any] | None = None,
    dataset_digest: str = "",
) -> Result:
    """Prune a copy of ``model`` and fine-tune it on the dataset's training split.

    Args:
        model: a float model; not changed.
        dataset: the data.
        config: the parameters.
        teachers: the logits of the model with the role ``teacher`` join the fine-tuning loss, by default those of the
            unpruned model; not changed.
        checkpoint: where to resume from and to save to.
        method: a score that outweighs ``config.method`` (see ``kondense.prune.methods``).
        dataset_digest: digest of the Dataset artifact, which ``lottery`` compares with the lineage; empty: unknown.

    Returns:
        The pruned model, and ``validation_accuracy`` with ``_before`` and ``_untuned`` (before the last fine-tuning, or
        if all of a gradual pruning were done at once), ``sparsity`` (fraction of the weights that are removed or zero),
        ``parameters``, ``macs``, and all three ``_before``.

    Raises:
        InputError: the request names no layer, cannot be met, or does not fit the model.
        NonFiniteLossError: fine-tuning diverged.
    """
    check_float("prune", model)
    check_fits("model", model, dataset)
    model, name = copied(model), config.method
    if method is not None:
        config, name = _settled(config, kind_of(method)), getattr(method, "__name__", type(method).__name__)
    kind = kind_of(method) if method is not None else METHODS[config.method].kind
    if kind == "channels":
        separate_attention(model.module, probes(dataset.shape))  # heads of projections that are layers can be removed
    teacher = copied(teachers["teacher"]) if teachers else None
    if teacher is not None:
        check_fits("teacher", teacher, dataset)
    loss = teacher_loss(config, (teacher or model).module, dataset, temperature=config.temperature, alpha=config.alpha)
    session = make_session(config, dataset, loss, checkpoint)
    context = resolve(config, model, session, dataset_digest=dataset_digest)
    context = dataclasses.replace(context, floor=floor_of(context, model.module, teacher.module if teacher else None))
    pruned, steps, details, shortfall = _prune(model, context, preparer(method or METHODS[config.method].load()))
    metrics = measure(model, pruned, dataset, context.device)
    metrics["validation_accuracy_untuned"] = steps[-1]["untuned"]
    details = {"layers": layer_sparsity(model.module, pruned.module), "steps": steps} | details
    if method is not None:
        details["method"] = name
    text = summary(name, kind, metrics, taught=teacher is not None)
    return Result(pruned, metrics, text, session.curve, details, shortfall)


def _settled(config: PruneConfig, kind: str) -> PruneConfig:
    """Return the config with the values that ``auto`` means for a score that no table lists."""
    scope = "global" if config.scope == "auto" else config.scope
    optimizer = AUTO_OPTIMIZERS[kind] if config.optimizer == "auto" else config.optimizer
    return dataclasses.replace(config, scope=scope, optimizer=optimizer)


def _prune(
    model: Model, context: Context, prepare: Prepare
) -> tuple[Model, list[dict[str, float]], dict[str, Any], str]:
    """Return the pruned model, the figures of every step, further details and the shortfall."""
    module = copy.deepcopy(model.module)
    details: dict[str, Any] = {}
    pruner = prepare(module, context)
    for note in pruner.notes():
        LOG.info(note)
    if context.config.sensitivity:
        details["sensitivity"] = scan(prepare, module, context, scanned_layers(pruner))
    if context.floor and not pruner.keeps_floor:
        sparsity, details["bound"] = largest_sparsity(prepare, module, context)
        context = dataclasses.replace(context, config=dataclasses.replace(context.config, sparsity=sparsity))
        pruner = prepare(module, context)
    masks, steps = iterate(module, pruner, context)
    pruned = dataclasses.replace(model, module=module, masked=tuple(sorted(masks)))
    shortfall = pruner.shortfall() or shortfall_of(context, steps[-1]["validation_accuracy"])
    return pruned, steps, details | pruner.details(), shortfall


def preparer(function: Callable[..., Any]) -> Prepare:
    """Return the ``prepare(module, context)`` of a method's function, which may be a score."""
    if getattr(function, "__name__", "") == "prepare":
        return function
    make = {"channels": channels.prepare, "weights": masks.prepare}[kind_of(function)]

    def prepare(module: nn.Module, context: Context) -> Pruner:
        return make(module, context, bind(function, context))

    return prepare
