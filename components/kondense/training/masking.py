"""Masks of pruned weights: zeroing them, and masks that change during training."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn


class Masking(Protocol):
    """Updates the masks within a training run.

    It must have no state: a resumed run restores the network and the masks, nothing else.
    """

    def update(
        self, module: nn.Module, masks: Mapping[str, Tensor], step: int, epoch: float
    ) -> Mapping[str, Tensor] | None:
        """Return the new masks, or None to keep the current ones.

        Args:
            module: the network after ``step`` training steps, with the gradients of the last one.
            masks: the current ones, boolean, by parameter name; True where a weight is kept.
            step: number of training steps since the beginning of the run.
            epoch: the same in epochs, fractional.
        """


@torch.no_grad()
def zero_masked(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set masked weights to 0.0: a weight times a mask may be -0.0, which packs worse."""
    for name, mask in masks.items():
        module.get_parameter(name).masked_fill_(~mask, 0.0)
