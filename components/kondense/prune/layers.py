"""How far each layer is pruned: the text of ``layers``, resolved on a network."""

from collections.abc import Mapping

from torch import nn

from kondense.networks.layers import TYPES, matching


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
