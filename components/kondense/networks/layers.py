"""Layers with weights, and their names in parameters: a type, a module, or a module that contains others."""

import difflib
from collections.abc import Iterable
from typing import Any

from torch import nn

from kondense.errors import InputError

LISTED = 20  # of more layers, only the nearest are named
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)  # whose weights stand by input
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)  # all but Conv2d only lose channels
WITH_KERNELS = (nn.Conv2d, nn.Linear)  # layers for which there are integer kernels
TYPES: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in WITH_KERNELS}


class StandIn(nn.Module):
    """A module in the place of a layer, ``self.layer``, whose sizes and settings it has too.

    A network's forward may read them: ``self.conv.out_channels``, ``self.fc.in_features``. What computes, and the
    tensors, are the stand-in's own.
    """

    def __getattr__(self, name: str) -> Any:
        """Return a plain attribute of the layer where the module has none."""
        layer = self.__dict__.get("_modules", {}).get("layer")
        if layer is not None and not name.startswith("_") and name in vars(layer):
            return vars(layer)[name]
        return super().__getattr__(name)


def weighted_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions and fully connected layers by module name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def parse_names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of names."""
    return tuple(filter(None, map(str.strip, text.split(","))))


def matching(module: nn.Module, parameter: str, names: Iterable[str]) -> set[str]:
    """Return the layers that ``names`` refer to: types, modules, or modules that contain others.

    Raises:
        InputError: a name that refers to none; the right ones are listed.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, (*CONVOLUTIONS, nn.Linear))}
    matched: set[str] = set()
    for name in names:
        hits = {layer for layer in layers if _refers(name, layer, layers[layer])}
        if not hits:
            shown = list(layers) if len(layers) <= LISTED else difflib.get_close_matches(name, layers, n=3, cutoff=0.0)
            nearest = "the layers" if len(layers) <= LISTED else f"the nearest of {len(layers)} layers"
            raise InputError(
                f"{parameter} must name layers of the network, but got {name!r}; the types are {', '.join(TYPES)},"
                f" {nearest} {', '.join(shown)}."
            )
        matched |= hits
    return matched


def _refers(name: str, layer_name: str, layer: nn.Module) -> bool:
    if name in TYPES:
        return isinstance(layer, TYPES[name])
    return layer_name == name or layer_name.startswith(f"{name}.")


def float_reason(owner: nn.Module, leaf: str) -> str:
    """Return why the parameter ``leaf`` of a module remains in float in a quantized network."""
    kind = type(owner).__name__
    if isinstance(owner, nn.MultiheadAttention):
        return "it belongs to an attention that is not called on one sequence without a mask"
    if type(owner) in WITH_KERNELS and leaf == "weight":
        if isinstance(owner, nn.Conv2d) and owner.padding_mode != "zeros":
            return f"there is no integer kernel for padding_mode {owner.padding_mode}"
        return "it is excluded, or the network does not call the layer"
    if isinstance(owner, WITH_KERNELS) and leaf == "weight":
        return f"{kind} is a layer of its own kind"
    return f"there is no integer kernel for the {leaf} of a {kind}"
