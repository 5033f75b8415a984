"""The metrics of a pruned model, a table of its layers and a summary in words."""

from typing import Any

import torch
from torch import nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.size import count_macs, count_parameters
from kondense.networks.layers import weighted_layers
from kondense.training.device import move


def validation_accuracy(module: nn.Module, dataset: Dataset, device: torch.device) -> float:
    """Return the accuracy on the validation split, computed on ``device``; the network ends on the CPU."""
    logits_NK = predict(move(module, device), dataset.validation, dataset, device=device)
    move(module, "cpu")
    return accuracy(logits_NK, dataset.validation.labels)


def measure(before: Model, after: Model, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """Return accuracy on the validation split, sparsity, parameters and MACs, of both models."""
    metrics = {}
    for suffix, model in (("", after), ("_before", before)):
        metrics[f"validation_accuracy{suffix}"] = validation_accuracy(model.module, dataset, device)
        metrics[f"parameters{suffix}"] = float(count_parameters(model.module))
        metrics[f"macs{suffix}"] = float(sum(count_macs(model.module, dataset.shape).values()))
    rows = layer_sparsity(before.module, after.module)
    weights = sum(row["weights_before"] for row in rows)
    metrics["sparsity_before"] = sum(row["sparsity_before"] * row["weights_before"] for row in rows) / weights
    metrics["sparsity"] = sum(row["sparsity"] * row["weights_before"] for row in rows) / weights
    return metrics


def layer_sparsity(before: nn.Module, after: nn.Module) -> list[dict[str, Any]]:
    """Return one row per convolution and fully connected layer, in the order of the network.

    ``sparsity_before`` and ``sparsity`` are fractions of the weights before pruning: those that were zero, and those
    that are zero or removed; ``shape_before`` and ``shape`` are the weight's.
    """
    rows = []
    for name, layer in weighted_layers(before).items():
        old, new = (network.get_parameter(f"{name}.weight") for network in (before, after))
        rows.append(
            {
                "name": name,
                "type": type(layer).__name__,
                "shape_before": list(old.shape),
                "shape": list(new.shape),
                "weights_before": old.numel(),
                "nonzero": int(torch.count_nonzero(new)),
                "sparsity_before": 1.0 - int(torch.count_nonzero(old)) / old.numel(),
                "sparsity": 1.0 - int(torch.count_nonzero(new)) / old.numel(),
            }
        )
    return rows


def summary(method: str, kind: str, metrics: dict[str, float], *, taught: bool) -> str:
    """Return the step in words, such as ``prune l1 65% of MACs with the teacher's logits``."""
    if kind == "weights":
        extent = f"{metrics['sparsity']:.1%} of weights"
    else:
        extent = f"{1.0 - metrics['macs'] / metrics['macs_before']:.1%} of MACs"
    return f"prune {method} {extent}" + (" with the teacher's logits" if taught else "")
