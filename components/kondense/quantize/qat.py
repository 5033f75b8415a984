"""Quantization-aware training: a statically quantized network is trained on its grids, along with their step sizes.

Shapes: weight [O, I, ...] -> step [O] or [1]; bias [O].
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.fold import fold_pairs, foldable_norms
from kondense.artifacts.model import Model, model_probes
from kondense.artifacts.quantized import ActivationQuantizer, install_quantizers
from kondense.artifacts.reparametrized import baked_copy
from kondense.artifacts.structure import open_silus, silus_opened
from kondense.artifacts.ties import owners
from kondense.errors import InputError
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.context import Context
from kondense.quantize.fake_quantize import FakeQuantizedNetwork, weight_grids
from kondense.quantize.grid import round_to_grid
from kondense.quantize.static import static
from kondense.training.losses import Loss, Objective

TINY = 32.0  # times smaller than the weights of a new layer (He et al. 2015)
LARGEST_SHIFT = 40  # in powers of two, whose squares float32 holds
METHOD = {
    "name": "qat",
    "kind": "activations",
    "summary": "as static, then trains on the grids",
    "function": "apply",
    "calibrates": True,
    "trains": True,
}


def apply(model: Model, context: Context) -> Model:
    """Calibrate ``model`` with the config's parameters and train it; see ``train``."""
    calibrated = static.apply(model, context)
    context.summary = static.summary(context.config, f"{context.config.epochs} epochs of training")
    return train(model, calibrated, context)


def train(model: Model, calibrated: Model, context: Context) -> Model:
    """Return ``calibrated`` after training with fake quantization; its integers compute the same values.

    Zeros of pruned weights remain zeros.

    Args:
        model: the float model; training starts from its weights, with its batch norms.
        calibrated: the result of ``static.quantize``: the quantized values, and the initial step sizes.
        context: how to train.

    Source: Jacob et al. 2018, section 3; Esser et al. 2020.
    """
    module = baked_copy(model.module)
    open_silus(module, silus_opened(calibrated.module))
    grids = weight_grids(calibrated, module)
    norms = {name: norm for name, norm in foldable_norms(module, model_probes(model)).items() if name in grids}
    inputs = {name: grid for name, grid in calibrated.activations.items() if isinstance(grid, ActivationQuantizer)}
    _enlarge(module, norms)
    _check_sizes(module, grids.keys(), context.config)
    network = FakeQuantizedNetwork(module, grids, inputs, norms)
    masks = {network.parameter_name(name): mask for name, mask in model.masks().items()}
    loss = FreezingLoss(network, context.session.loss, context.config.freeze)
    context.train(network, "qat", loss=loss, masks=masks)
    return _settle(calibrated, network)


@torch.no_grad()
def _enlarge(module: nn.Module, norms: Mapping[str, str]) -> None:
    """Scale tiny weights in front of batch norms up, in place; the network computes the same, to the bit.

    Their gradients grow as they shrink, so that the first step of training would dwarf them and the grids' steps.

    Args:
        module: the network.
        norms: the norm that will be folded into each layer, by layer name.
    """
    for name, norm in ((name, module.get_submodule(other)) for name, other in norms.items()):
        layer, larger = module.get_submodule(name), 1 / _relative_size(module, name)
        if larger < TINY or list(norms.values()).count(norms[name]) > 1:
            continue
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_mean is not None
        factor = 2.0 ** min(round(math.log2(larger)), LARGEST_SHIFT)
        for tensor in (layer.weight, layer.bias, norm.running_mean):
            if isinstance(tensor, Tensor):
                tensor.mul_(factor)
        assert norm.running_var is not None
        norm.running_var.mul_(factor**2)
        norm.eps *= factor**2


def _check_sizes(module: nn.Module, names: Iterable[str], config: QuantizeConfig) -> None:
    """Raise InputError if a layer's weights are tiny and the learning rate is the default, whose steps dwarf them."""
    sizes = {name: _relative_size(module, name) for name in names}
    tiny = [name for name, size in sizes.items() if 1 / size >= TINY]
    if tiny and config.rate_is_default:
        raise InputError(
            f"the weights of {tiny[0]!r} are {1 / sizes[tiny[0]]:.0e} times smaller than those of a new layer, and"
            f" training at learning rate {config.rate:g} would dwarf them; use method=static, or give a"
            " learning_rate."
        )


def _relative_size(module: nn.Module, name: str) -> float:
    """Return the root mean square of a layer's weights relative to that of a new one; 1 if all are zero."""
    weight = static.weighted(module, name).weight.detach()
    kept = weight[weight != 0].double()
    inputs = weight[0].numel()
    return float(kept.square().mean().sqrt()) * (inputs / 2) ** 0.5 if len(kept) else 1.0


class FreezingLoss(Objective):
    """A loss that freezes the network's batch norms after a fraction of the training."""

    def __init__(self, network: FakeQuantizedNetwork, loss: Loss, freeze: float) -> None:
        super().__init__()
        self.networks = (network,)  # a tuple, which state_dict ignores
        self.loss, self.freeze = loss, freeze

    def begin(self, index_B: Tensor, progress: float) -> None:
        """Prepare for one step."""
        self.networks[0].freeze(frozen=progress >= self.freeze)
        if isinstance(self.loss, Objective):
            self.loss.begin(index_B, progress)

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        return self.loss(logits_BK, labels_B, images_BCHW)


def _settle(calibrated: Model, network: FakeQuantizedNetwork) -> Model:
    """Return the trained network as integers, its norms folded."""
    activations = network.activations()
    # As the layers themselves fold: another order of rounding could change an integer.
    folded = {name: layer.folded()[0].detach() for name, layer in network.layers.items()}
    grids = {name: layer.weight_grid for name, layer in network.layers.items()}
    module, quantized = fold_pairs(network.unwrap(), network.norms), {}
    first = owners(module)
    for name, weight in folded.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        scale = grids[name].scale()
        for tied in (other for other in folded if first[other] == first[name]):
            scale = static.accumulator_safe(scale, static.weighted(module, tied).bias, activations[tied])
        quantized[f"{name}.weight"] = tensor = round_to_grid(weight, scale, grids[name].bits)
        with torch.no_grad():
            layer.weight.copy_(tensor.dequantize())
        static.settle_bias(layer, tensor, activations[name])
    install_quantizers(module, activations)
    return dataclasses.replace(calibrated, module=module, quantized=quantized, activations=activations)
