"""Which layers are pruned and how far: the texts of ``layers`` and ``exclude``, resolved on a network."""

from collections.abc import Iterable, Mapping

from torch import nn

TYPES: dict[str, type[nn.Module]] = {"Conv2d": nn.Conv2d, "Linear": nn.Linear}


def prunable_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions and fully connected layers by module name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, tuple(TYPES.values()))}


def matching(module: nn.Module, parameter: str, names: Iterable[str]) -> set[str]:
    """Return the prunable layers that ``names`` mean: types, modules, or modules that hold others.

    Raises:
        ValueError: a name that means none; the right ones are listed.
    """
    layers = prunable_layers(module)
    found: set[str] = set()
    for name in names:
        hits = {layer for layer in layers if _means(name, layer, layers[layer])}
        if not hits:
            raise ValueError(
                f"{parameter} must name layers of the network, but got {name!r}; the types are {', '.join(TYPES)},"
                f" the layers {', '.join(layers)}."
            )
        found |= hits
    return found


def resolve_fractions(module: nn.Module, fractions: Mapping[str, float]) -> dict[str, float]:
    """Return the fraction of every prunable layer that ``fractions`` means; a name outweighs a type.

    Raises:
        ValueError: an entry that means no layer; the right ones are listed.
    """
    resolved: dict[str, float] = {}
    # Types first, then modules from the outermost to the innermost: what is more specific overwrites.
    for name in sorted(fractions, key=lambda name: (name not in TYPES, name.count("."))):
        for layer in matching(module, "layers", [name]):
            resolved[layer] = fractions[name]
    return resolved


def _means(name: str, layer_name: str, layer: nn.Module) -> bool:
    if name in TYPES:
        return isinstance(layer, TYPES[name])
    return layer_name == name or layer_name.startswith(f"{name}.")
