"""The optimizers: groups of weights, their learning rates, and their state in a checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.training.muon import Muon
from kondense.training.settings import TrainingConfig

# The parts of a checkpoint -> the keys of an optimizer's state.
STATES = {"momentum": "momentum_buffer", "first_moment": "exp_avg", "second_moment": "exp_avg_sq", "steps": "step"}
SECOND_BETA = 0.999


def make_optimizer(module: nn.Module, objective: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a network and of the objective's own parameters.

    Biases, the parameters of norms and those that the network names in ``no_weight_decay()``, as timm's do, do not
    decay. Every group has the factor ``scale`` of its learning rate.

    Raises:
        InputError: there is nothing to train.
    """
    undecayed = {id(weight) for weight in _undecayed(module)}
    scales = _scales(module, config.layer_decay)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for weight in [*module.parameters(), *objective.parameters()]:
        decays = weight.ndim > 1 and id(weight) not in undecayed
        groups.setdefault((decays, scales.get(id(weight), 1.0)), []).append(weight)
    # Weights that decay come first; the order of an optimizer's groups changes no result, but that of its state.
    listed: list[dict[str, Any]] = [
        {"params": groups[key], "weight_decay": config.weight_decay if key[0] else 0.0, "scale": key[1]}
        for key in sorted(groups, key=lambda key: (not key[0], -key[1]))
    ]
    if not listed:
        raise InputError("the network must have weights to train, but has none.")
    if config.optimizer == "muon":
        return Muon(listed, learning_rate=config.rate, momentum=config.momentum)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(listed, lr=config.rate, betas=(config.momentum, SECOND_BETA), fused=True)
    return torch.optim.SGD(listed, lr=config.rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)


def saved_state(optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the optimizer's state as tensors on the CPU: ``<prefix><part>.<parameter>``, by the modules' prefixes."""
    found = {}
    for prefix, name, weight in _named(modules):
        for part, key in STATES.items():
            value = optimizer.state.get(weight, {}).get(key)
            if isinstance(value, Tensor):
                found[f"{prefix}{part}.{name}"] = value.detach().cpu()
    return found


def restore_state(
    optimizer: torch.optim.Optimizer, modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]
) -> None:
    """Set the optimizer's state to what ``saved_state`` returned."""
    for prefix, name, weight in _named(modules):
        for part, key in STATES.items():
            saved = tensors.get(f"{prefix}{part}.{name}")
            if saved is not None:
                place = torch.empty_like(weight) if saved.shape == weight.shape else torch.empty_like(saved)
                optimizer.state[weight][key] = place.to(weight.device, saved.dtype).copy_(saved)


def _named(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, nn.Parameter]]:
    for prefix, module in modules.items():
        for name, weight in module.named_parameters():
            yield prefix, name, weight


def _undecayed(module: nn.Module) -> Iterator[nn.Parameter]:
    declared: Any = getattr(module, "no_weight_decay", set)
    named = set(declared())
    for name, weight in module.named_parameters():
        if name in named:
            yield weight
    for layer in module.modules():
        if "Norm" in type(layer).__name__:
            yield from layer.parameters(recurse=False)


def _scales(module: nn.Module, decay: float) -> dict[int, float]:
    """Return the factors of the learning rate: 1 in the last layer with a matrix, times ``decay`` in each before it."""
    depths: dict[int, int] = {}
    depth = -1
    for layer in module.modules():
        own = list(layer.parameters(recurse=False))
        depth += any(weight.ndim > 1 for weight in own)
        depths |= {id(weight): max(depth, 0) for weight in own if id(weight) not in depths}
    return {key: decay ** (max(depth, 0) - layer) for key, layer in depths.items()}
