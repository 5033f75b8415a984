"""Which layers have integer kernels."""

from torch import nn

from kondense.artifacts.model import Model

WITH_KERNELS = (nn.Conv2d, nn.Linear)


def quantizable_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers whose weights can be quantized: Conv2d and Linear, in the network's order."""
    return [
        name
        for name, layer in module.named_modules()
        if type(layer) in WITH_KERNELS and (not isinstance(layer, nn.Conv2d) or layer.padding_mode == "zeros")
    ]


def float_layers(model: Model) -> list[str]:
    """Return the names of the layers with weights of two dimensions or more that stay in float."""
    names = []
    for name, parameter in model.module.named_parameters():
        if parameter.ndim > 1 and name not in model.quantized:
            names.append(name.removesuffix(".weight"))
    return names


def weight_errors(quantized: Model, original: Model) -> dict[str, float]:
    """Return the error of each quantized weight relative to the weight, as root mean squares, by layer.

    Layers into which a batch norm was folded are left out, since their weights were rescaled, and those that lost
    channels.
    """
    originals = dict(original.module.named_parameters())
    folded = {name for name in quantized.quantized if f"{name.removesuffix('.weight')}.bias" not in originals}
    errors = {}
    for name, tensor in quantized.quantized.items():
        norm = float(originals[name].detach().norm())
        if norm and name not in folded and tensor.integers.shape == originals[name].shape:
            errors[name.removesuffix(".weight")] = float((tensor.dequantize() - originals[name].detach()).norm()) / norm
    return errors
