"""Export of a model as a ``torch.export`` program.

The file is a zip of JSON and raw weights without pickle. Loading one can run code nevertheless: torch evaluates the
expressions of its shapes and accepts pickles. Kondense therefore loads only files that it has just written, to check
them; do not load such a file from an untrusted source.

Shapes: images [N, C, H, W]; N is dynamic.
"""

import copy
import io

import numpy as np
import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.artifacts.quantized import ActivationQuantizer, install_quantizers, remove_quantizers
from kondense.data.dataset import Dataset
from kondense.export.trace import trace_program


def export_program(model: Model, dataset: Dataset) -> bytes:
    """Return ``model`` as the file of a ``torch.export`` program: normalised float32 images to logits.

    Args:
        model: any model; it is not changed.
        dataset: gives the image shape.

    Raises:
        ArtifactError: the network is not a static graph; the text names the module.
    """
    module = copy.deepcopy(model.module).eval().cpu()
    static = {place: each for place, each in model.activations.items() if isinstance(each, ActivationQuantizer)}
    remove_quantizers(module, static)
    install_quantizers(module, {place: QuantizeArithmetic(quantizer) for place, quantizer in static.items()})
    program = trace_program(module, dataset.shape)
    program.example_inputs = None  # torch would pickle them
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


class QuantizeArithmetic:
    """An input quantizer as plain arithmetic with the same values; torch.export cannot trace torch's operator."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        self.quantizer = quantizer
        # The reciprocal in float32, as in torch's kernel.
        self.inverse = float(np.float32(1) / np.float32(quantizer.scale))

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs of ``module`` with the first one on the grid."""
        grid = self.quantizer
        integers = torch.round(inputs[0] * self.inverse) + grid.zero_point
        integers = integers.clamp(0, 2**grid.bits - 1)
        return ((integers - grid.zero_point) * grid.scale, *inputs[1:])
