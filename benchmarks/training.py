"""Images per second of the training loop beside a bare PyTorch loop over the same tensors, in one process.

    python -m benchmarks.training [--network lenet5] [--rounds 5] [--images 12800] [--output FILE]

Both train the same network on the same images with the same optimizer, batch size, memory format and
normalisation. Rounds alternate, so that a drifting machine hits both alike; medians and their ratio are
printed, and written as JSON with --output.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from kondense.data.dataset import Dataset, Split
from kondense.networks.build import NetworkSpec, build
from kondense.training.device import choose_memory_format
from kondense.training.losses import cross_entropy
from kondense.training.settings import TrainingConfig
from kondense.training.trainer import Trainer
from torch import nn


def random_dataset(images: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        pixels = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
        return Split(pixels, torch.randint(0, 10, (count,), generator=generator))

    classes = tuple(map(str, range(10)))
    return Dataset("random", classes, (0.5,), (0.25,), 0, "random", split(images), split(128), split(128))


def bare_epoch(module: nn.Module, optimizer: torch.optim.Optimizer, dataset: Dataset, batch_size: int) -> float:
    """Train one epoch the way a tutorial does and return images per second."""
    images, labels = dataset.train.images, dataset.train.labels
    memory_format = choose_memory_format(module)
    module.train()
    order = torch.randperm(len(labels))
    steps = len(labels) // batch_size
    started = time.perf_counter()
    for step in range(steps):
        index = order[step * batch_size : (step + 1) * batch_size]
        batch = (images[index].float().div_(255.0) - 0.5).div_(0.25).contiguous(memory_format=memory_format)
        optimizer.zero_grad()
        F.cross_entropy(module(batch), labels[index]).backward()
        optimizer.step()
    return steps * batch_size / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lenet5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=12800)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    dataset = random_dataset(arguments.images)
    spec = NetworkSpec(arguments.network, {"classes": 10, "channels": 1, "image_size": 28})
    config = TrainingConfig(epochs=arguments.rounds + 1, device="cpu", learning_rate=0.01)
    ours = Trainer(build(spec), dataset, config, {}, cross_entropy(0.0))
    bare = build(spec)
    bare = bare.to(memory_format=choose_memory_format(bare))
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    figures: dict[str, list[float]] = {"kondense": [], "bare": []}
    for round_ in range(arguments.rounds + 1):
        ours.train_epoch(due=lambda: False, save=lambda state: None)
        rate = bare_epoch(bare, optimizer, dataset, config.batch_size)
        if round_:  # the first one warms up
            figures["kondense"].append(ours.images_per_s)
            figures["bare"].append(rate)
    medians = {name: statistics.median(rates) for name, rates in figures.items()}
    ratio = statistics.median(a / b for a, b in zip(figures["kondense"], figures["bare"], strict=True))
    print(f"{arguments.network}, {torch.get_num_threads()} threads, {arguments.rounds} rounds of {arguments.images}")
    for name, rate in medians.items():
        print(f"{name:10s} {rate:8.0f} images/s  (min {min(figures[name]):.0f}, max {max(figures[name]):.0f})")
    print(f"ratio kondense / bare, median of pairs: {ratio:.3f}")
    if arguments.output:
        arguments.output.write_text(json.dumps({"images_per_s": figures, "ratio": ratio}, indent=2))


if __name__ == "__main__":
    main()
