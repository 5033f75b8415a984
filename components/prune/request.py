"""What a pruning method is asked for, and what it gives: one step at a time."""

import dataclasses
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from components.artifacts.dataset import Dataset
from components.artifacts.model import Model
from components.prune.config import PruneConfig
from components.prune.fractions import parse_fractions, parse_names
from components.prune.layers import matching, resolve_fractions

# Prunes a share, (0, 1], of what is asked for, in place; later steps go further. Returns the masks of the
# weights that are zero and must stay so, by parameter name; True where a weight is kept.
Step = Callable[[float], dict[str, Tensor]]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a method, resolved on a network.

    Attributes:
        config: the stage's parameters.
        image_shape: shape of one image, (C, H, W).
        fractions: fraction removed from a layer, by module name, where ``config.layers`` gives one.
        excluded: module names of the layers that stay whole.
        masked: names of the weights whose zeros an earlier stage pruned.
    """

    config: PruneConfig
    image_shape: tuple[int, int, int]
    fractions: Mapping[str, float] = dataclasses.field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    masked: tuple[str, ...] = ()

    def masks(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the masks of the weights that an earlier stage pruned, in their shapes of now."""
        state = module.state_dict()
        return {name: state[name] != 0 for name in self.masked}


def resolve(config: PruneConfig, model: Model, dataset: Dataset) -> Request:
    """Return the request that ``config`` means for a model.

    Raises:
        ValueError: ``layers`` or ``exclude`` names no layer, or both name the same one.
    """
    excluded = frozenset(matching(model.module, "exclude", parse_names(config.exclude)))
    fractions = resolve_fractions(model.module, parse_fractions(config.layers))
    for name in sorted(excluded & fractions.keys()):
        raise ValueError(f"a layer must be in layers or in exclude, but {name!r} is in both.")
    return Request(config, dataset.shape, fractions, excluded, model.masked)
