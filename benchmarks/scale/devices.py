"""Training in two processes of one thread beside one process of two threads.

Both run the stage's command, in turns, since other load on the machine changes the speed of either; the ratio is that
of the medians.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from kondense.data.dataset import Dataset, save_dataset

EPOCHS = 3  # the first is not counted: it warms up
BATCH, STEPS, SIZE = 128, 2, 32
RATE = re.compile(r"^epoch (\d+)/.*images_per_s=(\d+)$", re.MULTILINE)
WAYS = {
    "1 process, 2 threads": ("--devices", "1"),
    "2 processes, norms synchronised": ("--devices", "2"),
    "2 processes, norms of parts": ("--devices", "2", "--sync-batch-norm", "false"),
}


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, object]:
    data = directory / "devices"
    save_dataset(data, images())
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(arguments.rounds):
        for number, (way, flags) in enumerate(WAYS.items()):
            rates[way] += measured(data, directory / f"model-{turn}-{number}", flags)
    base = statistics.median(rates["1 process, 2 threads"])
    print(f"ResNet-20, {SIZE} pixels, batches of {BATCH}: {arguments.rounds} turns of {EPOCHS - 1} epochs")
    print("| way | images per second, median (lowest to highest epoch) | of one process |\n|---|---|---|")
    for way, values in rates.items():
        median = statistics.median(values)
        print(f"| {way} | {median:.0f} ({min(values):.0f} to {max(values):.0f}) | {median / base:.2f} |")
    return {"rates": rates}


def images() -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        return pixels, torch.arange(count) % 10

    names = [str(number) for number in range(10)]
    return Dataset.from_arrays(train=split(BATCH * STEPS), validation=split(20), test=split(20), classes=names)


def measured(data: Path, model: Path, flags: tuple[str, ...]) -> list[float]:
    command = [sys.executable, "-m", "kondense.cli", "train", "--dataset-dir", str(data), "--model-dir", str(model)]
    command += ["--network", "resnet20", "--batch-size", str(BATCH), "--epochs", str(EPOCHS), "--device", "cpu", *flags]
    # With less spinning, as `kondense run` sets it: beside other work, two threads of one process wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "5000"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [float(rate) for epoch, rate in RATE.findall(output) if int(epoch) > 1]
