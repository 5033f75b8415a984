"""Learned rounding: each weight is rounded up or down such that the layer's outputs change least.

Shapes: weight [O, I, ...]; B calibration images in a step.

Source: Nagel et al. 2020, "Up or down? Adaptive rounding for post-training quantization" (AdaRound), with the
inputs from the quantized layers before. Deviation: the loss is relative to that of rounding to nearest, so that one
weight of the regulariser fits every layer and number of bits; the result is used only where it is better.
"""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.artifacts.quantized import QuantizedTensor
from kondense.quantize.grid import round_to_grid, weight_limit

ZETA, GAMMA = 1.1, -0.1  # the rectified sigmoid's stretch (section 3, equation 23)
BETAS = (20.0, 2.0)  # exponent of the regulariser, at the end of the warm-up and of the run
WARM_UP = 0.2  # fraction of the steps without regulariser
WEIGHT = 4.0  # of the regulariser, its mean over the weights
RATE = 0.1  # of Adam; with it 500 steps leave less error than 1500 at the paper's 0.01
BATCH = 32  # images per step
SAMPLE = 256  # images on which the loss of rounding to nearest is measured


def learn_rounding(
    layer: nn.Module,
    scale: Tensor,
    bits: int,
    inputs: Tensor,
    targets: Tensor,
    *,
    relu: bool,
    steps: int,
    generator: torch.Generator,
) -> QuantizedTensor:
    """Return the weight of ``layer`` on its grid, rounded such that its outputs on images change least.

    Zeros remain zeros.

    Args:
        layer: a float convolution or linear layer; it is not changed.
        scale: of the grid, [O] or [1].
        bits: bits per weight.
        inputs: of the layer in the partly quantized network, [N, ...].
        targets: outputs of the layer in the float network, [N, ...].
        relu: whether a ReLU is all that reads the outputs, so that negative values do not count.
        steps: optimizer steps.
        generator: draws the batches.
    """
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.detach().float()
    scales = scale.reshape(-1, *[1] * (weight.ndim - 1))
    floor = torch.floor(weight / scales)
    fraction = weight / scales - floor  # [0, 1)
    # At the start the rectified sigmoid returns the weight itself.
    start = -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)
    variable = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=RATE)
    probe = copy.deepcopy(layer)
    limit, kept = weight_limit(bits), weight != 0

    def loss(weight: Tensor, index_B: Tensor) -> Tensor:
        outputs = torch.func.functional_call(probe, {"weight": weight}, (inputs[index_B],))
        expected = targets[index_B]
        return F.mse_loss(outputs.relu(), expected.relu()) if relu else F.mse_loss(outputs, expected)

    nearest, sample_N = round_to_grid(weight, scale, bits), torch.arange(min(SAMPLE, len(inputs)))
    with torch.no_grad():
        size = float(loss(nearest.dequantize(), sample_N))
    if not size:
        return nearest
    for step in range(steps):
        index_B = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=generator)
        with torch.enable_grad():
            up = torch.clamp(torch.sigmoid(variable) * (ZETA - GAMMA) + GAMMA, 0, 1)
            total = loss((floor + up).clamp(-limit, limit) * scales * kept, index_B) / size
            beta = _beta(step / steps)
            if beta:
                total = total + WEIGHT * (1 - (2 * up - 1).abs().pow(beta)).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.no_grad():
        integers = (floor + (variable >= 0)).clamp(-limit, limit) * kept
        learned = QuantizedTensor(integers.to(torch.int8), scale.float(), bits)
        # A layer with few weights may end in a poor minimum.
        return learned if float(loss(learned.dequantize(), sample_N)) < size else nearest


def _beta(progress: float) -> float:
    """Return the regulariser's exponent, 0 during the warm-up; a lower one pulls harder towards 0 and 1."""
    if progress < WARM_UP:
        return 0.0
    return BETAS[1] + (BETAS[0] - BETAS[1]) * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def record(module: nn.Module, name: str, batches_NCHW: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return inputs and outputs of the layer ``name`` on calibration images, [N, ...] each."""
    layer_inputs, layer_outputs = [], []

    def keep(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        layer_inputs.append(inputs[0].detach())
        layer_outputs.append(output.detach())

    handle = module.get_submodule(name).register_forward_hook(keep)
    try:
        with torch.no_grad():
            for batch_NCHW in batches_NCHW:
                module(batch_NCHW)
    finally:
        handle.remove()
    return torch.cat(layer_inputs), torch.cat(layer_outputs)
