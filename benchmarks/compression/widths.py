"""Widths: channel counts that are multiples of a number, as integer kernels want them, at equal MACs.

`l1` removes the same share of the MACs each time; only what the counts must be divisible by differs.
"""

import functools

from benchmarks.compression.channels import kondense
from benchmarks.compression.setting import Entry

CASES = {"lenet5": (0.5, 3), "resnet8": (0.5, 3)}  # fraction of the MACs removed, epochs
MULTIPLES = (1, 4, 8)

ENTRIES = [
    Entry(
        network,
        f"{100 * sparsity:.0f} % fewer MACs, {epochs} epochs",
        f"kondense l1, widths divisible by {multiple}",
        functools.partial(kondense, method="l1", sparsity=sparsity, epochs=epochs, round_to=multiple),
    )
    for network, (sparsity, epochs) in CASES.items()
    for multiple in MULTIPLES
]
