"""Masks that change while a network trains."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn


class Masking(Protocol):
    """Chooses which weights stay, again and again within a training run.

    It must remember nothing: a run that is resumed has the network and the masks of before, nothing else.
    """

    def update(
        self, module: nn.Module, masks: Mapping[str, Tensor], step: int, epoch: float
    ) -> Mapping[str, Tensor] | None:
        """Return the masks from now on, or None to leave them.

        Args:
            module: the network after ``step`` steps of training, with the gradients of the last one.
            masks: those of now, boolean, by parameter name; True where a weight is kept.
            step: steps of training behind, from the beginning of the run.
            epoch: the same in epochs, fractional.
        """
