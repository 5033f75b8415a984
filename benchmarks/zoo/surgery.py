"""`python -m benchmarks.zoo.surgery`: time of tracing and surgery beside torch-pruning's, in turn in one process.

    python -m benchmarks.zoo.surgery --networks lcnet_035,resnet18 --runs 5

Both halve every group of channels, and what is left must run. Kondense's time holds the proof that the network computes
the same without the channels; torch-pruning makes none.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from kondense.networks.allowed import allowing

from benchmarks.zoo.networks import chosen
from benchmarks.zoo.peers import surgery, torch_pruning_surgery


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.surgery", description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default="", help="names, parts of names or groups of the zoo; all when empty")
    parser.add_argument("--runs", type=int, default=5, help="of each, in turn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | Kondense, s | torch-pruning, s | ratio | of the medians |\n|---|---|---|---|---|")
    for network in chosen([text for text in arguments.networks.split(",") if text]):
        with allowing(networks=[network]):
            ours, theirs = turns([surgery, torch_pruning_surgery], network, arguments.runs)
        print(f"| {network.partition(':')[2] or network} | {row(ours, theirs)} |", flush=True)


def turns(ways: list[Callable[[str, Path], str]], network: str, runs: int) -> list[list[float] | str]:
    """Return the seconds of each way in every run, or why it failed."""
    found: list[list[float] | str] = [[] for _ in ways]
    for _ in range(runs):
        for place, way in enumerate(ways):
            seconds = found[place]
            if isinstance(seconds, str):
                continue
            try:
                seconds.append(sum(float(part.removesuffix(" s")) for part in way(network, Path()).split(" + ")))
            except Exception as error:  # a peer may raise anything
                found[place] = f"{type(error).__name__}: {' '.join(str(error).split())[:60]}"
    return found


def row(ours: list[float] | str, theirs: list[float] | str) -> str:
    """Return the cells of a network: the least times, their ratio and that of the medians."""
    least = [each if isinstance(each, str) else f"{min(each):.3f}" for each in (ours, theirs)]
    if isinstance(ours, str) or isinstance(theirs, str):
        return " | ".join([*least, "", ""])
    ratios = [min(ours) / min(theirs), statistics.median(ours) / statistics.median(theirs)]
    return " | ".join([*least, *(f"{ratio:.2f}" for ratio in ratios)])


if __name__ == "__main__":
    main()
