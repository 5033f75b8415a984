"""Channels: whole channels leave, for the same epochs and from the same teachers.

The peers are torch-pruning's own pruners at their defaults, asked for the smallest ratio of channels that saves the
MACs: MagnitudePruner with L1 and with FPGM within each layer, and GroupNormPruner across the network; fine-tuned
with plain cross-entropy by the shared loop.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from kondense.artifacts.model import load_model
from kondense.measuring.size import count_macs
from kondense.prune.config import PruneConfig
from kondense.prune.stage import run
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig
from torch import nn

from benchmarks.compression.setting import Entry, Setting

NETWORK = "resnet8"
CASES = ((0.5, 3), (0.7, 1))  # fraction of the MACs removed, epochs
BISECTIONS = 12

Pruner = Callable[[nn.Module, torch.Tensor, float], torch_pruning.BasePruner]


WARMUP = 0.1  # of the epochs, for ours and the peers: the default of half an epoch is too much of a single one


def kondense(setting: Setting, method: str, sparsity: float, epochs: int, **parameters: Any) -> dict[str, float]:
    """Run the prune stage as a user would: the method and how much, all else but the warm-up by default.

    Args:
        setting: of the entry.
        method: of pruning.
        sparsity: fraction of the MACs that is removed.
        epochs: of fine-tuning, in the profile ``cores``.
        parameters: further ones of PruneConfig.
    """
    config = PruneConfig(
        method=method,
        sparsity=sparsity,
        epochs=setting.epochs(epochs),
        warmup_epochs=WARMUP * setting.epochs(epochs),
        seed=setting.seed,
        device=setting.profile.device,
        **parameters,
    )
    pruned_dir = setting.directory / "pruned"
    run(config, dataset_dir=setting.dataset_dir, model_dir=setting.teacher_dir, pruned_dir=pruned_dir)
    return figures(setting, load_model(pruned_dir).module)


def peer(setting: Setting, pruner: Pruner, sparsity: float, epochs: int) -> dict[str, float]:
    """Prune by torch-pruning and fine-tune."""
    module = peer_pruned(setting, pruner, sparsity)
    tune(setting, module, epochs)
    return figures(setting, module)


def tune(setting: Setting, module: nn.Module, epochs: int) -> None:
    """Fine-tune in place by SGD at a rate of 0.02."""
    config = TrainingConfig(
        epochs=setting.epochs(epochs),
        learning_rate=0.02,
        warmup_epochs=WARMUP * setting.epochs(epochs),
        seed=setting.seed,
        device=setting.profile.device,
    )
    fit(module, setting.dataset, config)


def peer_pruned(setting: Setting, pruner: Pruner, sparsity: float) -> nn.Module:
    """Return the teacher pruned at the smallest ratio of channels that removes ``sparsity`` of its MACs."""
    teacher = setting.teacher.module
    image = torch.zeros(1, *setting.dataset.shape)
    budget = (1.0 - sparsity) * _macs(teacher, setting)
    low, high, found = 0.0, 1.0, teacher
    for _ in range(BISECTIONS):
        middle, trial = (low + high) / 2, copy.deepcopy(teacher)
        pruner(trial, image, middle).step()
        if _macs(trial, setting) <= budget:
            high, found = middle, trial
        else:
            low = middle
    return found


def figures(setting: Setting, module: nn.Module) -> dict[str, float]:
    """Return accuracy and the MACs that are left, %."""
    left = _macs(module, setting) / _macs(setting.teacher.module, setting)
    return setting.drop(module) | {"MACs left": 100.0 * left}


def _macs(module: nn.Module, setting: Setting) -> float:
    return float(sum(count_macs(module, setting.dataset.shape).values()))


def _uniform(importance: Callable[[], object]) -> Pruner:
    def make(module: nn.Module, image: torch.Tensor, ratio: float) -> torch_pruning.BasePruner:
        return torch_pruning.pruner.MagnitudePruner(
            module, image, importance=importance(), pruning_ratio=ratio, ignored_layers=_outputs(module)
        )

    return make


def _group_norm(module: nn.Module, image: torch.Tensor, ratio: float) -> torch_pruning.BasePruner:
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    return torch_pruning.pruner.GroupNormPruner(
        module,
        image,
        importance=importance,
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=_outputs(module),
    )


def _outputs(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]


L1: Pruner = _uniform(functools.partial(torch_pruning.importance.MagnitudeImportance, p=1))
FPGM: Pruner = _uniform(torch_pruning.importance.FPGMImportance)
PEERS: dict[str, Pruner] = {
    "torch-pruning L1": L1,
    "torch-pruning FPGM": FPGM,
    "torch-pruning GroupNorm, global": _group_norm,
}
OURS = ("greedy", "l1", "l2", "fpgm", "taylor_channel")

METHODS: dict[str, Callable[..., dict[str, float]]] = {
    **{f"kondense {method}": functools.partial(kondense, method=method) for method in OURS},
    **{name: functools.partial(peer, pruner=pruner) for name, pruner in PEERS.items()},
}
ENTRIES = [
    Entry(
        NETWORK,
        f"{100 * sparsity:.0f} % fewer MACs, {epochs} epochs",
        name,
        functools.partial(work, sparsity=sparsity, epochs=epochs),
    )
    for sparsity, epochs in CASES
    for name, work in METHODS.items()
]
