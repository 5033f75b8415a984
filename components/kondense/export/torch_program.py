"""The ``torch.export`` form of a model: its operators and weights, for whoever runs it in torch.

The file is a zip of JSON and raw weights; it holds no pickle. Loading one can run code all the same: torch reads
the expressions of its shapes by evaluating them, and takes pickles where a file has some. So Kondense loads none but
the one that it has just written, to check it, and nobody should load one from a place that they do not trust.

Shapes: images [N, C, H, W]; N is free.
"""

import copy
import io

import numpy as np
import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.artifacts.quantized import ActivationQuantizer
from kondense.data.dataset import Dataset
from kondense.export.trace import capture


def export_program(model: Model, dataset: Dataset) -> bytes:
    """Return ``model`` as the file of a ``torch.export`` program: normalised float32 images to logits.

    Args:
        model: any model; it is left as it was.
        dataset: gives the image shape.

    Raises:
        ArtifactError: the network is no fixed graph; the text names the module.
    """
    module = copy.deepcopy(model.module).eval().cpu()
    for name in model.activations:
        _replace_hooks(module.get_submodule(name))
    program = capture(module, dataset.shape)
    program.example_inputs = None  # torch would pickle them
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


class QuantizeArithmetic:
    """An input quantizer as plain arithmetic, the very same values: torch.export cannot follow torch's own operator."""

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        self.quantizer = quantizer
        # As torch's kernel has it: the reciprocal in float32.
        self.inverse = float(np.float32(1) / np.float32(quantizer.scale))

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the inputs of ``module`` with the first one on the grid."""
        grid = self.quantizer
        integers = torch.round(inputs[0] * self.inverse) + grid.zero_point
        integers = integers.clamp(0, 2**grid.bits - 1)
        return ((integers - grid.zero_point) * grid.scale, *inputs[1:])


def _replace_hooks(module: nn.Module) -> None:
    hooks = module._forward_pre_hooks  # torch has no public way without the hook's handle
    for key, hook in list(hooks.items()):
        if isinstance(hook, ActivationQuantizer):
            hooks[key] = QuantizeArithmetic(hook)
