"""Bias correction: subtract the mean error of each output channel that quantization causes.

Shapes: a layer's output [N, O, H, W] or [N, ..., O]; its mean over all but the channels [O].

Source: Nagel et al. 2019, section 4.2, in the variant measured on images (appendix D).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kondense.quantize.static.observers import parts


def output_means(module: nn.Module, names: Sequence[str], batches_NCHW: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the mean output of every named convolution or linear layer, [O], over all images and positions."""
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(names, 0)

    def add(name: str, layer: nn.Module, output: Tensor) -> None:
        channels = 1 if isinstance(layer, nn.Conv2d) else output.ndim - 1
        others = [axis for axis in range(output.ndim) if axis != channels]
        sums[name] = sums.get(name, 0.0) + output.sum(others).double()
        counts[name] += output.numel() // output.shape[channels]

    handles = [
        module.get_submodule(name).register_forward_hook(
            lambda layer, _inputs, output, name=name: add(name, layer, output)
        )
        for name in names
    ]
    try:
        with torch.no_grad():
            for batch_NCHW in batches_NCHW:
                for part_NCHW in parts(batch_NCHW):
                    module(part_NCHW)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / counts[name] for name, total in sums.items()}


def correct_bias(module: nn.Module, name: str, means: Mapping[str, Tensor], batches_NCHW: Sequence[Tensor]) -> None:
    """Shift the bias of the layer ``name`` in place so that its mean output equals the float network's.

    Args:
        module: the network, quantized up to and including this layer; the layers before are corrected already.
        name: of a layer with a bias.
        means: of the float network's outputs, by layer.
        batches_NCHW: calibration images, normalised.
    """
    layer = module.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
    mean_O = output_means(module, [name], batches_NCHW)[name]
    with torch.no_grad():
        layer.bias += (means[name] - mean_O).to(layer.bias.dtype)
