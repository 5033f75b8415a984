"""The curvature of the loss by tensor, and the step sizes of grids that change the loss equally."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kondense.artifacts.ties import shared_layers
from kondense.errors import InputError
from kondense.logging import LOG
from kondense.quantize.layers import quantizable_layers

SMALLEST_CURVATURE = 1e-4  # relative to the largest tensor; keeps tensors that hardly matter to the loss


def unit_steps(module: nn.Module, batches_NCHW: Iterable[Tensor], *, seed: int) -> dict[str, float]:
    """Return a step size for each weight and bias of convolutions and linear layers, by parameter name.

    It is proportional to one over the root of the tensor's mean curvature, so that rounding errors cost the same
    everywhere. That of the largest tensor is the root mean square of its non-zero weights.

    Args:
        module: the network; it is not changed.
        batches_NCHW: calibration images, normalised.
        seed: of the drawn labels.
    """
    tied = shared_layers(module)
    layers = quantizable_layers(module)
    if tied & set(layers):
        LOG.info(f"layers with tied weights remain in float: {', '.join(name for name in layers if name in tied)}.")
    names = [
        f"{name}.{kind}"
        for name in layers
        for kind in ("weight", "bias")
        if name not in tied and getattr(module.get_submodule(name), kind) is not None
    ]
    if not names:
        raise InputError(f"rate_distortion needs a layer whose weight is not tied, but got {', '.join(layers)}.")
    curvature = _mean_curvature(copy.deepcopy(module).eval(), names, batches_NCHW, seed)
    largest = max(names, key=lambda name: module.get_parameter(name).numel())
    weight = module.get_parameter(largest).detach()
    nonzero_N = weight[weight != 0]
    unit = float(nonzero_N.double().square().mean().sqrt()) if len(nonzero_N) else 1.0
    reference = max(curvature[largest], torch.finfo(torch.float64).tiny)
    return {name: unit / max(curvature[name] / reference, SMALLEST_CURVATURE) ** 0.5 for name in names}


def _mean_curvature(module: nn.Module, names: list[str], batches_NCHW: Iterable[Tensor], seed: int) -> dict[str, float]:
    """Return the mean squared gradient by tensor, with labels drawn from the predictions.

    Source: the empirical diagonal of the Fisher matrix, averaged (Theis et al. 2018, section 3).
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(module.named_parameters())
    total = dict.fromkeys(names, 0.0)
    for batch_NCHW in batches_NCHW:
        logits_NK = module(batch_NCHW)
        drawn_N = torch.multinomial(logits_NK.detach().softmax(1), 1, generator=generator)[:, 0]
        loss = nn.functional.cross_entropy(logits_NK, drawn_N)
        gradients = torch.autograd.grad(loss, [parameters[name] for name in names], allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            total[name] += 0.0 if gradient is None else float(gradient.double().square().mean())
    return total
