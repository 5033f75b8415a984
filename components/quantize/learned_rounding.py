"""Learned rounding: whether each weight goes to the integer below or above, so that outputs change least.

Shapes: weight [O, I, ...]; B calibration images in a step.

Source: Nagel et al. 2020, "Up or down? Adaptive rounding for post-training quantization" (AdaRound), with the
inputs that the quantized layers before give. Deviations: the regulariser is scaled to the mean loss per output.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.artifacts.quantized import QuantizedTensor
from components.quantize.grid import weight_limit

ZETA, GAMMA = 1.1, -0.1  # the rectified sigmoid's stretch (section 3, equation 23)
BETAS = (20.0, 2.0)  # of the regulariser, at the end of the warm-up and of the run
WARM_UP = 0.2  # share of the steps without regulariser
WEIGHT = 0.01  # of the regulariser
RATE = 1e-2  # of Adam
BATCH = 32  # images per step


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

    def soft(up: Tensor) -> Tensor:
        return ((floor + up).clamp(-limit, limit) * scales) * kept

    size = float(targets.clamp(min=0).square().mean() if relu else targets.square().mean()) or 1.0
    for step in range(steps):
        index_B = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=generator)
        up = torch.clamp(torch.sigmoid(variable) * (ZETA - GAMMA) + GAMMA, 0, 1)
        outputs = torch.func.functional_call(probe, {"weight": soft(up)}, (inputs[index_B],))
        wanted = targets[index_B]
        error = (outputs.relu() - wanted.relu()) if relu else (outputs - wanted)
        loss = error.square().mean() / size
        progress = (step / steps - WARM_UP) / (1 - WARM_UP)
        if progress > 0:
            beta = BETAS[1] + (BETAS[0] - BETAS[1]) * 0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi)))
            loss = loss + WEIGHT * (1 - (2 * up - 1).abs().pow(beta)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        integers = (floor + (variable >= 0)).clamp(-limit, limit) * kept
    return QuantizedTensor(integers.to(torch.int8), scale.float(), bits)


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
