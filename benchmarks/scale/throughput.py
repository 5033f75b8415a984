"""Training from shards beside training from images in memory, with the same network in one process."""

import argparse
import gc
import statistics
from pathlib import Path
from typing import Any

import torch
from kondense.networks.build import NetworkSpec, build
from kondense.training.losses import cross_entropy
from kondense.training.settings import TrainingConfig
from kondense.training.trainer import Trainer

from benchmarks.scale.clock import Spent, spent
from benchmarks.scale.photos import CLASSES, CROP
from benchmarks.scale.prepared import prepared

NETWORK = "torchvision:resnet18"
IMAGES = 320  # of which a network of real size takes seconds


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Print images per second of both and their ratio; epochs alternate, the first of each warms up."""
    found: dict[str, list[Spent]] = {}
    trainers = {}
    count = min(arguments.images, IMAGES)
    for storage in ("tensors", "shards"):
        dataset = prepared(directory, count, storage)
        spec = NetworkSpec(NETWORK, {"classes": CLASSES, "channels": 3, "image_size": CROP})
        config = TrainingConfig(
            epochs=arguments.rounds + 1, batch_size=32, device="cpu", learning_rate=0.01, augment="flip"
        )
        trainers[storage] = Trainer(build(spec, seed=0), dataset, config, {}, cross_entropy(0.0))
        found[storage] = []
    for round_ in range(arguments.rounds + 1):
        for storage, trainer in trainers.items():

            def epoch(trainer: Trainer = trainer) -> None:
                trainer.train_epoch(due=lambda: False, save=lambda state: None)
                gc.collect()

            took = spent(epoch)
            if round_:
                found[storage].append(took)
    weights = [trainer.module.state_dict() for trainer in trainers.values()]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), "the weights differ"
    figures = {}
    trained = len(dataset.train) // 32 * 32
    print(f"{NETWORK}, {CROP} px, {torch.get_num_threads()} threads, {trained} images an epoch, equal weights")
    print(
        "| images | images/s | images per CPU second | ratio, median (worst), by wall | by CPU |\n|---|---|---|---|---|"
    )
    for storage, times in found.items():
        walls, cpus = (
            [getattr(peer, name) / getattr(each, name) for each, peer in zip(times, found["tensors"], strict=True)]
            for name in ("wall_s", "cpu_s")
        )
        per_s, per_cpu = (
            statistics.median(trained / getattr(each, name) for each in times) for name in ("wall_s", "cpu_s")
        )
        figures[storage] = {"images_per_s": per_s, "images_per_cpu_s": per_cpu, "wall": walls, "cpu": cpus}
        print(
            f"| {storage} | {per_s:.1f} | {per_cpu:.1f} | {statistics.median(walls):.2f} ({min(walls):.2f}) |"
            f" {statistics.median(cpus):.2f} ({min(cpus):.2f}) |"
        )
    return figures
