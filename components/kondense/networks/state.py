"""Load tensors by name into a network."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn


def load_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a network that has the same ones.

    A state dict holds a version of each module beside the tensors, and the loading of some networks (torchvision's
    MNASNet) fails without it. Files of tensors do not hold it: these tensors are of the version of ``module``.

    Args:
        module: the network; changed in place.
        tensors: all of its tensors, by name.

    Raises:
        RuntimeError: a tensor is missing, unexpected, or has another shape.
    """
    state = OrderedDict(tensors)
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    module.load_state_dict(state)
