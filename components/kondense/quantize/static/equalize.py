"""Cross-layer equalisation: rescale neighbouring layers so that their channels have equal ranges.

Shapes: weight [O, I, ...]; C channels between two layers.

Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1.
Deviation: biases are not absorbed, because activations are calibrated on images.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from kondense.artifacts.equivalence import preserving
from kondense.artifacts.ties import shared_layers
from kondense.quantize.graph import next_layer, trace_graph

PASSES = 40
TOLERANCE = 1e-3  # the passes end when no channel's range changes by more, relatively


def equalize(module: nn.Module, batches: Sequence[Tensor] = ()) -> list[tuple[str, str]]:
    """Rescale the channels between layers of ``module`` in place; its function remains the same.

    A channel with maximum weights r1 in the layer that writes it and r2 in the layer that reads it has sqrt(r1 r2) in
    both afterwards. Modules between the two must commute with a positive factor, as ReLU and pooling do. Zeros remain
    zeros.

    Args:
        module: in evaluation mode, its batch norms folded.
        batches: images [N, C, H, W] on which the outputs must stay (see ``probes``); a pair that changes them is left
            out.

    Returns:
        The pairs of layers.
    """
    graph = trace_graph(module, batches)
    barred = shared_layers(module) | {name for name, part in graph.modules.items() if part._forward_hooks}
    pairs = []
    for name, layer in graph.modules.items():
        if type(layer) in (nn.Conv2d, nn.Linear):
            reader = next_layer(graph, name)
            channels = len(layer.get_parameter("weight"))
            if reader is None or barred & {name, reader}:
                continue
            if _by_input(module.get_submodule(reader), channels) is not None:
                pairs.append((name, reader))
    pairs = preserving("equalizing", module, pairs, _equalize_pairs, batches)
    _equalize_pairs(module, pairs)
    return pairs


def _equalize_pairs(module: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    pairs = list(pairs)
    for _ in range(PASSES):
        changes = [_equalize(module.get_submodule(writer), module.get_submodule(reader)) for writer, reader in pairs]
        if max(changes, default=0.0) < TOLERANCE:
            break


@torch.no_grad()
def _equalize(writer: nn.Module, reader: nn.Module) -> float:
    """Equalise one pair and return the largest relative change of a range."""
    assert isinstance(writer, nn.Conv2d | nn.Linear) and isinstance(reader, nn.Conv2d | nn.Linear)
    written_C = writer.weight.flatten(1).abs().amax(1)
    values = _by_input(reader, len(written_C))
    assert values is not None
    read_C = values.abs().amax((0, 2))
    divisor_C = torch.where((written_C > 0) & (read_C > 0), torch.sqrt(written_C) / torch.sqrt(read_C), 1.0)
    writer.weight /= divisor_C.reshape(-1, *[1] * (writer.weight.ndim - 1))
    if writer.bias is not None:
        writer.bias /= divisor_C
    values *= divisor_C[:, None]  # a view of the weight
    return float((divisor_C - 1).abs().max())


def _by_input(reader: nn.Module, channels: int) -> Tensor | None:
    """Return a view [O, C, ...] of the reader's weight by input channel, or None if its groups do not allow one."""
    assert isinstance(reader, nn.Conv2d | nn.Linear)
    weight = reader.weight.data
    if isinstance(reader, nn.Linear):  # a flattened image has its pixels channel by channel
        return weight.view(len(weight), channels, -1) if weight.shape[1] % channels == 0 else None
    if reader.groups == 1:
        return weight.view(len(weight), channels, -1)
    if reader.groups == channels == len(weight):
        return weight.view(1, channels, -1)
    return None
