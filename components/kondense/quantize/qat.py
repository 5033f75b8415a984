"""Quantization-aware training: a statically quantized network, trained on its grids, whose steps are learnt too.

Shapes: weight [O, I, ...] -> step [O] or [1]; bias [O].
"""

import copy
import dataclasses

import torch
from torch import Tensor, nn

from kondense.artifacts.fold import fold_batch_norms, foldable_norms
from kondense.artifacts.model import Model
from kondense.artifacts.quantized import install_quantizers
from kondense.quantize.fake_quantize import FakeQuantizedNetwork, WeightGrid
from kondense.quantize.grid import round_to_grid
from kondense.quantize.request import Request
from kondense.quantize.static import static
from kondense.training.losses import Loss, Objective


def apply(model: Model, request: Request) -> Model:
    """Calibrate ``model`` as the request's config says and train it on; see ``train``."""
    return train(model, static.apply(model, request), request)


def train(model: Model, calibrated: Model, request: Request) -> Model:
    """Return ``calibrated`` after training; what it computes on integers is what was trained.

    Zeros of pruned weights stay zeros.

    Args:
        model: the float model; the training starts from its weights, its batch norms in place.
        calibrated: what ``static.quantize`` made of it: where values are quantized, and the steps to start from.
        request: how to train.

    Source: Jacob et al. 2018, section 3; Esser et al. 2020.
    """
    module = copy.deepcopy(model.module)
    grids = {
        name.removesuffix(".weight"): WeightGrid(tensor.scale, tensor.bits)
        for name, tensor in calibrated.quantized.items()
    }
    norms = {name: norm for name, norm in foldable_norms(module).items() if name in grids}
    network = FakeQuantizedNetwork(module, grids, calibrated.activations, norms)
    masks = {network.parameter_name(name): mask for name, mask in model.masks().items()}
    request.train(network, "qat", loss=FreezingLoss(network, request.loss, request.config.freeze), masks=masks)
    return _settle(calibrated, network)


class FreezingLoss(Objective):
    """A loss that freezes the network's batch norms in the course of the training."""

    def __init__(self, network: FakeQuantizedNetwork, loss: Loss, freeze: float) -> None:
        super().__init__()
        self.networks = (network,)  # a tuple, so that it is no part of this module
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
    # As the layers themselves fold: another order of rounding could move a weight to the next integer.
    folded = {name: layer.folded()[0].detach() for name, layer in network.layers.items()}
    grids = {name: layer.weight_grid for name, layer in network.layers.items()}
    module, quantized = fold_batch_norms(network.unwrap()), {}
    for name, weight in folded.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        scale = static.bias_safe(grids[name].scale(), layer.bias, activations[name])
        quantized[f"{name}.weight"] = tensor = round_to_grid(weight, scale, grids[name].bits)
        with torch.no_grad():
            layer.weight.copy_(tensor.dequantize())
        static.settle_bias(layer, tensor, activations[name])
    install_quantizers(module, activations)
    return dataclasses.replace(calibrated, module=module, quantized=quantized, activations=activations)
