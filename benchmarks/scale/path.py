"""The data path alone: shuffled, decoded, cropped and mirrored batches, without a network."""

import argparse
import gc
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kondense.data import workers
from kondense.training.feed import Augmented
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.scale.clock import Spent, spent
from benchmarks.scale.photos import CROP, SIDE, make_photographs
from benchmarks.scale.prepared import prepared

BATCH = 64


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Print images per second of each reader, with one worker process, and the ratios to torchvision's."""
    readers = {"ImageFolder, DataLoader": image_folder(make_photographs(directory, arguments.images))}
    for encoding in ("ppm", "png"):
        readers[f"shards, {encoding}"] = shards(prepared(directory, arguments.images, "shards", encoding))
    found: dict[str, list[Spent]] = {name: [] for name in readers}
    counts: dict[str, int] = {}
    for round_ in range(arguments.rounds + 1):  # the first one fills the page cache
        for name, read in readers.items():
            took = spent(partial(_counted, read, name, counts))
            found[name].append(took)
        if not round_:
            found = {name: [] for name in readers}
    torchvision, *_ = readers
    figures = {}
    print("| reader | images/s | images per CPU second | ratio, median (worst) of the latter |\n|---|---|---|---|")
    for name, times in found.items():
        per_cpu = [counts[name] / each.cpu_s for each in times]
        peers = [counts[torchvision] / each.cpu_s for each in found[torchvision]]
        ratios = [each / peer for each, peer in zip(per_cpu, peers, strict=True)]
        per_s = statistics.median(counts[name] / each.wall_s for each in times)
        figures[name] = {"images_per_s": per_s, "images_per_cpu_s": statistics.median(per_cpu), "ratios": ratios}
        print(
            f"| {name} | {per_s:,.0f} | {statistics.median(per_cpu):,.0f} |"
            f" {statistics.median(ratios):.2f} ({min(ratios):.2f}) |"
        )
    return figures


def _counted(read: Callable[[], int], name: str, counts: dict[str, int]) -> None:
    counts[name] = read()
    gc.collect()  # ends the workers


def image_folder(folder: Path) -> Callable[[], int]:
    """Return a function that reads an epoch of torchvision's ImageFolder and returns the number of images."""
    crop = [v2.PILToTensor(), v2.Resize(SIDE), v2.CenterCrop(CROP), v2.RandomHorizontalFlip()]
    source = ImageFolder(str(folder), v2.Compose(crop))

    def read() -> int:
        loader = DataLoader(source, BATCH, shuffle=True, num_workers=1, drop_last=True)
        return sum(len(images) for images, _ in loader)

    return read


def shards(dataset: Any) -> Callable[[], int]:
    """Return a function that reads an epoch of shards as training does."""
    images = dataset.train.images

    def read() -> int:
        order = images.shuffled(torch.Generator().manual_seed(0))
        index = [part for part in order.split(BATCH) if len(part) == BATCH]
        return sum(len(part) for part, _ in images.batches(index, Augmented(0, 0, 0, ("flip",))))

    assert workers.planned(BATCH * images.shape[1:].numel())[0] == 1, f"set {workers.WORKERS}=1"
    return read
