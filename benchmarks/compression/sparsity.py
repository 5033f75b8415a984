"""Sparsity: single weights become zero, for the same epochs and from the same teachers.

The peer is torch.nn.utils.prune's global magnitude pruning, at once and by the cubic schedule (Zhu and Gupta 2017),
a step before every epoch but the last two; fine-tuned with plain cross-entropy by the shared loop.
"""

import functools

import torch
from kondense.artifacts.model import load_model
from kondense.prune.config import PruneConfig
from kondense.prune.stage import run
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig
from torch import nn
from torch.nn.utils import prune as torch_prune

from benchmarks.compression.setting import Entry, Setting

CASES = (("lenet5", 0.95), ("lenet5", 0.98), ("lenet5", 0.99), ("lenet300", 0.95), ("lenet300", 0.98))
EPOCHS = 5


def kondense(setting: Setting, sparsity: float, scope: str = "auto") -> dict[str, float]:
    """Run the prune stage as a user would: the method, the sparsity and the scope, all else by default."""
    epochs = setting.epochs(EPOCHS)
    config = PruneConfig(
        method="magnitude",
        sparsity=sparsity,
        scope=scope,
        epochs=epochs,
        seed=setting.seed,
        device=setting.profile.device,
    )
    pruned_dir = setting.directory / "pruned"
    run(config, dataset_dir=setting.dataset_dir, model_dir=setting.teacher_dir, pruned_dir=pruned_dir)
    module = load_model(pruned_dir).module
    return setting.drop(module) | {"sparsity": 100.0 * _sparsity(module)}


def torch_one_shot(setting: Setting, sparsity: float) -> dict[str, float]:
    """Prune at once by torch.nn.utils.prune, then fine-tune."""
    return _torch(setting, [sparsity], [setting.epochs(EPOCHS)])


def torch_cubic(setting: Setting, sparsity: float) -> dict[str, float]:
    """Prune by torch.nn.utils.prune before each epoch, to a sparsity that the cubic schedule says, and fine-tune."""
    epochs = setting.epochs(EPOCHS)
    steps = max(1, epochs - 1)
    reached = [sparsity * (1.0 - (1.0 - step / steps) ** 3) for step in range(1, steps + 1)]
    return _torch(setting, reached, [1] * (steps - 1) + [epochs - steps + 1])


def _torch(setting: Setting, reached: list[float], epochs: list[int]) -> dict[str, float]:
    module = setting.teacher.module
    layers = [(layer, "weight") for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    weights = sum(layer.weight.numel() for layer, _ in layers)
    before = 0
    for number, (sparsity, count) in enumerate(zip(reached, epochs, strict=True)):
        # An amount counts among what is left; a second call would otherwise prune what is pruned.
        pruned = round(sparsity * weights)
        module.to(memory_format=torch.contiguous_format)  # global_unstructured fails on channels_last weights
        scores = {(layer, name): layer.weight.detach().contiguous() for layer, name in layers}
        torch_prune.global_unstructured(
            layers,
            pruning_method=torch_prune.L1Unstructured,
            importance_scores=scores,
            amount=pruned - before,
        )
        before = pruned
        config = TrainingConfig(
            epochs=count, learning_rate=0.02, seed=setting.seed + number, device=setting.profile.device
        )
        fit(module, setting.dataset, config)
    for layer, name in layers:
        torch_prune.remove(layer, name)
    return setting.drop(module) | {"sparsity": 100.0 * _sparsity(module)}


def _sparsity(module: nn.Module) -> float:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    zeros = sum(int((layer.weight == 0).sum()) for layer in layers)
    return zeros / sum(layer.weight.numel() for layer in layers)


METHODS = {
    "kondense magnitude": kondense,
    "kondense magnitude, global": functools.partial(kondense, scope="global"),
    "torch.nn.utils.prune, cubic": torch_cubic,
    "torch.nn.utils.prune, one shot": torch_one_shot,
}
ENTRIES = [
    Entry(
        network,
        f"{sparsity:.0%} sparse, {EPOCHS} epochs".replace("%", " %"),
        method,
        functools.partial(run_method, sparsity=sparsity),
    )
    for network, sparsity in CASES
    for method, run_method in METHODS.items()
]
