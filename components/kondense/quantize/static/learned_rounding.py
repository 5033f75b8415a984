"""Learned rounding: whether each weight goes to the integer below or above, so that outputs change least.

Shapes: weight [O, I, ...]; B calibration images in a step.

Source: Nagel et al. 2020, "Up or down? Adaptive rounding for post-training quantization" (AdaRound), with the
inputs that the quantized layers before give. Deviation: the loss is relative to that of rounding to the nearest,
so that one weight of the regulariser fits every layer and number of bits; it is kept only where it is better.
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
BETAS = (20.0, 2.0)  # of the regulariser, at the end of the warm-up and of the run
WARM_UP = 0.2  # share of the steps without regulariser
WEIGHT = 4.0  # of the regulariser, its mean over the weights
RATE = 0.1  # of Adam; with it 500 steps leave less error than 1500 at the paper's 0.01
BATCH = 32  # images per step
SAMPLE = 256  # images that the loss of rounding to the nearest is measured on


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
    """Return the weight of ``layer`` on its grid, rounded so that its outputs on images change least.

    Zeros stay zeros.

    Args:
        layer: a float convolution or linear layer; it is left as it was.
        scale: of the grid, [O] or [1].
        bits: of a weight.
        inputs: of the layer in the network quantized so far, [N, ...].
        targets: what the float layer gives in the float network, [N, ...].
        relu: whether nothing but a ReLU sees the outputs, so that values below zero do not count.
        steps: of gradient descent.
        generator: draws the batches.
    """
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.detach().float()
    scales = scale.reshape(-1, *[1] * (weight.ndim - 1))
    floor = torch.floor(weight / scales)
    place = weight / scales - floor  # [0, 1)
    # The rectified sigmoid gives the weight itself at the start.
    start = -torch.log((ZETA - GAMMA) / (place - GAMMA) - 1)
    variable = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=RATE)
    probe = copy.deepcopy(layer)
    limit, kept = weight_limit(bits), weight != 0

    def loss(weight: Tensor, index_B: Tensor) -> Tensor:
        outputs = torch.func.functional_call(probe, {"weight": weight}, (inputs[index_B],))
        wanted = targets[index_B]
        return F.mse_loss(outputs.relu(), wanted.relu()) if relu else F.mse_loss(outputs, wanted)

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
        # A layer of a few weights may end in a poor minimum.
        return learned if float(loss(learned.dequantize(), sample_N)) < size else nearest


def _beta(progress: float) -> float:
    """Return the regulariser's exponent, 0 while there is none; the lower, the more it wants whole numbers."""
    if progress < WARM_UP:
        return 0.0
    return BETAS[1] + (BETAS[0] - BETAS[1]) * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def record(module: nn.Module, name: str, batches_NCHW: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return what enters and leaves the layer ``name`` on calibration images, [N, ...] each."""
    entered, left = [], []

    def keep(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        entered.append(inputs[0].detach())
        left.append(output.detach())

    handle = module.get_submodule(name).register_forward_hook(keep)
    try:
        with torch.no_grad():
            for batch_NCHW in batches_NCHW:
                module(batch_NCHW)
    finally:
        handle.remove()
    return torch.cat(entered), torch.cat(left)
