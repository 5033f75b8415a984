"""A quantized model with folded batch norms from a network whose parameters lie on grids.

Shapes: weight [O, I, ...] -> scale [1], or [O] where a batch norm is folded in; bias [O].
"""

import copy
import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.fold import fold_pairs, foldable_norms
from kondense.artifacts.model import Model, model_probes
from kondense.artifacts.quantized import QuantizedTensor
from kondense.artifacts.ties import tied_names
from kondense.channels.dead import dead_channels, fold_constants
from kondense.channels.dependencies import find_groups
from kondense.channels.surgery import remove
from kondense.logging import LOG
from kondense.networks.state import load_state
from kondense.quantize.rate_distortion.grid import RateGrid

BIAS_STEPS = 16  # per root mean square, of a bias that was not trained on a grid


def on_grids(model: Model, trained: nn.Module, grids: Mapping[str, RateGrid], choices: int) -> Model:
    """Return ``model`` with the values of ``trained`` and integers for the parameters that ``grids`` names.

    A batch norm after a layer becomes one scale per channel, in bfloat16, and a bias. These biases and the parameters
    of the other norms are rounded; biases with grids are multiples of powers of two, which the kz file stores as
    integers.

    Args:
        model: the same network without grids; it is not changed.
        trained: the network with grids.
        grids: of ``trained``, by parameter name.
        choices: rounds of choosing integers (see ``RateGrid.integers``).
    """
    state = trained.state_dict()
    integers = {
        name: grid.integers(trained.get_parameter(parameter_behind(name)).detach(), choices)
        for name, grid in grids.items()
    }
    steps = {name: grid.step for name, grid in grids.items()}
    module = copy.deepcopy(model.module).eval()
    tied = tied_names(module)  # such as those of a module under two names
    names = {name: tied.get(name, name) for name in module.state_dict()}
    # Not remove_parametrizations: it changes the class, which copies of ``trained`` share.
    load_state(
        module,
        {name: integers[first] * steps[first] if first in integers else state[name] for name, first in names.items()},
    )
    norms = foldable_norms(module, model_probes(model))
    factors = {name: _factor(module.get_submodule(norm)) for name, norm in norms.items()}
    folded = fold_pairs(module, norms)
    quantized = {
        name: _scaled(tensor, steps[name], factors.get(name.removesuffix(".weight")))
        for name, tensor in integers.items()
        if name.endswith("weight")
    }
    with torch.no_grad():
        for name, parameter in folded.named_parameters():
            if name in quantized:
                parameter.copy_(quantized[name].dequantize())
            elif name not in integers or name.removesuffix(".bias") in norms:
                parameter.copy_(_rounded(parameter, is_bias=name.removesuffix(".bias") in norms))
    for buffer in folded.buffers():
        if buffer.is_floating_point():
            buffer.copy_(buffer.bfloat16())
    masked = tuple(name for name in model.masked if name in quantized or name in dict(folded.named_parameters()))
    return dataclasses.replace(model, module=folded, quantized=quantized, masked=masked)


def without_dead_channels(model: Model, images_NCHW: Tensor) -> Model:
    """Return ``model`` without the channels that do not matter, repeated until there are none.

    The constant output of a channel without weights is added to the biases of the layers that read it, rounded to
    their grid.

    Args:
        model: quantized; it is not changed, and returned itself if its channels cannot be traced.
        images_NCHW: a few images, normalised.
    """
    module = copy.deepcopy(model.module).eval()
    integers = copy.deepcopy(module)
    with torch.no_grad():
        for name, tensor in model.quantized.items():
            integers.get_parameter(name).copy_(tensor.integers)
    scales = {name: tensor.scale for name, tensor in model.quantized.items() if isinstance(tensor, QuantizedTensor)}
    channels, height, width = images_NCHW.shape[1:]
    while True:
        try:
            groups = find_groups(module, (channels, height, width))
        except ValueError as error:
            LOG.info(f"channels that do not matter are kept: {error}")
            return model
        steps = {name: _step_of(bias) for name, bias in module.named_parameters() if name.endswith("bias")}
        for layer in fold_constants(module, groups, images_NCHW):
            bias = module.get_parameter(f"{layer}.bias")
            bias.data = torch.round(bias.detach() / steps[f"{layer}.bias"]) * steps[f"{layer}.bias"] + 0.0
            integers.get_parameter(f"{layer}.weight").data.mul_(module.get_parameter(f"{layer}.weight") != 0)
        dead = dead_channels(module, groups, images_NCHW)
        if not dead:
            break
        for layer, kept in remove(module, groups, dead).items():
            scale = scales.get(f"{layer}.weight")
            if scale is not None and len(scale) > 1:
                scales[f"{layer}.weight"] = scale[kept]
        remove(integers, groups, dead)
    quantized = {
        name: QuantizedTensor(integers.get_parameter(name).detach().to(torch.int8), scales[name], tensor.bits)
        for name, tensor in model.quantized.items()
    }
    return dataclasses.replace(model, module=module, quantized=quantized)


def _step_of(bias: Tensor) -> float:
    """Return the largest power of two of which all values are multiples."""
    values = bias.detach().double().abs()
    largest = float(values.max())
    if not largest:
        return 2.0**-16
    step = 2.0 ** math.floor(math.log2(largest))
    while (torch.remainder(values, step) != 0).any():
        step /= 2
    return step


def parameter_behind(name: str) -> str:
    """Return the name of the parameter that the grid ``name`` quantizes."""
    owner, _, kind = name.rpartition(".")
    return f"{owner}.parametrizations.{kind}.original"


def _factor(norm: nn.Module) -> Tensor:
    """Return the factor of a batch norm by channel, [O]."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_var is not None
    factor_O = (norm.running_var.double() + norm.eps).rsqrt()
    return factor_O if norm.weight is None else factor_O * norm.weight.detach().double()


def _scaled(integers: Tensor, step: float, factor_O: Tensor | None) -> QuantizedTensor:
    scale = torch.tensor([step], dtype=torch.float64) if factor_O is None else step * factor_O.abs()
    if factor_O is not None:
        # Scales are positive, so the integers take the sign of the norm's factor.
        integers = integers * torch.where(factor_O < 0, -1.0, 1.0).reshape(-1, *[1] * (integers.ndim - 1))
    bits = max(2, math.ceil(math.log2(float(integers.abs().max()) + 1)) + 1)
    return QuantizedTensor((integers + 0.0).to(torch.int8), scale.bfloat16().float(), bits)


def _rounded(parameter: Tensor, *, is_bias: bool) -> Tensor:
    """Return a bias as multiples of a power of two, and any other parameter in bfloat16."""
    size = float(parameter.detach().square().mean().sqrt()) / BIAS_STEPS
    if not is_bias or not size:
        return parameter.detach().bfloat16().float()
    step = 2.0 ** round(math.log2(size))
    return torch.round(parameter.detach() / step) * step + 0.0
