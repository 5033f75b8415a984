"""What changes when data and machines grow: images that fit no memory, several devices.

    python -m benchmarks.scale [--parts path,throughput,memory,devices,whole] [--gib 1] [--limit-gib 2] [--rounds 3]
        [--output FILE]

Each part prints its table and its conditions; --output keeps the figures as JSON. The parts:

- path: images per second and per second of processor time of the data path alone, from shards and from torchvision's
  ImageFolder with DataLoader, on the same JPEG files with the same transforms.
- throughput: training from shards beside training from images in memory.
- memory: peak memory of a whole process tree that trains one epoch, at 1x, 4x and 16x of the images; the largest has
  --gib GiB of decoded images, and every tree is killed when it exceeds --limit-gib.
- devices: ResNet-20 in two processes of one thread beside one process of two threads, in turns.
- whole: `kondense run` with --network on --images images in a bucket at --size px, from shards and on two devices,
  within --limit-gib; killed twice (--ways killed) beside undisturbed. The second kill is in the step `distill`.
"""

import argparse
import importlib
import json
import os
import tempfile
from pathlib import Path

PARTS = {
    "path": "benchmarks.scale.path",
    "throughput": "benchmarks.scale.throughput",
    "memory": "benchmarks.scale.memory",
    "devices": "benchmarks.scale.devices",
    "whole": "benchmarks.scale.whole",
}  # each has `run(arguments, directory)`, which prints a table and returns the figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--gib", type=float, default=1.0, help="GiB of decoded images of the largest data set")
    parser.add_argument("--limit-gib", type=float, default=2.0, help="limit of a process tree")
    parser.add_argument("--images", type=int, default=2000, help="images of path, throughput and whole")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default="undisturbed,killed", help="of whole")
    parser.add_argument("--network", default="torchvision:resnet18", help="of whole")
    parser.add_argument("--size", type=int, default=224, help="pixels of the images of whole")
    parser.add_argument("--candidates", default="", help="of whole, joined by commas; by default all")
    parser.add_argument("--directory", type=Path, help="for the images; by default a temporary one")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="kondense-scale-") as scratch:
        directory = arguments.directory or Path(scratch)
        for part in arguments.parts.split(","):
            print(f"\n## {part} (load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores)", flush=True)
            figures[part] = importlib.import_module(PARTS[part]).run(arguments, directory)
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
