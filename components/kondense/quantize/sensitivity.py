"""The effect of quantizing one layer alone.

Shapes: N images, K classes.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.data.dataset import Dataset
from kondense.measuring.accuracy import accuracy, predict
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.weight_only import quantize_weight

ALL_BITS = tuple(range(2, 9))
REPORTED_BITS = (2, 3, 4, 5, 6, 8)


def accuracy_by_bits(module: nn.Module, dataset: Dataset, granularity: str) -> dict[str, Any]:
    """Return the validation accuracy with the weights of one layer at fewer bits and the others in float.

    Returns:
        ``of``: ``bits``; ``rows``: by layer, ``points`` of bits and accuracy, as the report draws them.
    """

    def measure(changed: nn.Module) -> float:
        return accuracy(predict(changed, dataset.validation, dataset), dataset.validation.labels)

    accuracies = scan(module, granularity, REPORTED_BITS, measure)
    rows = [
        {"layer": name, "points": [list(point) for point in zip(REPORTED_BITS, values, strict=True)]}
        for name, values in accuracies.items()
    ]
    return {"of": "bits", "rows": rows}


def divergence_by_bits(
    module: nn.Module, batches_NCHW: Sequence[Tensor], granularity: str, bits: Sequence[int] = ALL_BITS
) -> dict[str, list[float]]:
    """Return the mean divergence of the predictions from the float network's, by layer and bits.

    It needs no labels and also shows changes that leave the predicted classes the same.

    Source: Cai et al. 2020, "ZeroQ", section 3.3 (Kullback-Leibler divergence as sensitivity).
    """
    expected_NK = _log_probabilities(module, batches_NCHW)

    def measure(changed: nn.Module) -> float:
        changed_NK = _log_probabilities(changed, batches_NCHW)
        return float(F.kl_div(changed_NK, expected_NK, reduction="batchmean", log_target=True))

    return scan(module, granularity, bits, measure)


def scan(
    module: nn.Module, granularity: str, bits: Sequence[int], measure: Callable[[nn.Module], float]
) -> dict[str, list[float]]:
    """Return ``measure`` of the network with each layer alone quantized to each number of bits."""
    module = copy.deepcopy(module).eval()
    values: dict[str, list[float]] = {}
    for name in quantizable_layers(module):
        weight = module.get_parameter(f"{name}.weight")
        values[name] = []
        for count in bits:
            with _changed(weight, quantize_weight(weight, bits=count, granularity=granularity).dequantize()):
                values[name].append(measure(module))
    return values


@contextlib.contextmanager
def _changed(weight: nn.Parameter, values: Tensor) -> Iterator[None]:
    """Replace a weight within the block."""
    before = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(values)
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


def _log_probabilities(module: nn.Module, batches_NCHW: Sequence[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.cat([F.log_softmax(module(batch_NCHW).double(), dim=1) for batch_NCHW in batches_NCHW])
