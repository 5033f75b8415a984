"""Network slimming: scales of batch norms are trained towards zero, and the channels with the smallest removed.

Source: Liu et al. 2017, section 3, equation 1 (an L1 penalty on the scales joins the loss) and "channel pruning and
fine-tuning". Deviations: the penalty is trained for ``sparse_epochs`` of the epochs of fine-tuning, not for all
of the training; scales are compared relative to the mean of their group; where several norms scale a channel,
those behind a shortcut for instance, their absolute values are added up.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import ChannelGroup
from kondense.errors import InputError
from kondense.prune import channels
from kondense.prune.method import Masks, Method
from kondense.prune.request import Request
from kondense.training.losses import Loss

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that trains with the penalty and then removes the channels with the smallest scales.

    Raises:
        ValueError: no channel has a norm with a scale, no epoch is left after the sparse training, or what
            ``channels.prepare`` refuses.
    """
    config = request.config
    if config.epochs <= config.sparse_epochs:
        raise InputError(
            f"sparse_epochs must be less than epochs ({config.epochs}), which they are part of,"
            f" but got {config.sparse_epochs}."
        )
    pruner = Slimming(module, request)
    pruner.check()
    return pruner


class Slimming(channels.ChannelPruner):
    """Removes channels by the scales of their norms, after sparse training."""

    def __init__(self, module: nn.Module, request: Request) -> None:
        super().__init__(module, request, score)
        self.trained = False

    def groups(self) -> dict[str, ChannelGroup]:
        """Return the groups of the network as it stands that have a scale."""
        found = {name: group for name, group in super().groups().items() if _scales(group)}
        if not found:
            raise InputError("bn_scale must find batch norms with a scale behind the channels, but there are none.")
        return found

    def own_epochs(self) -> int:
        """Return the epochs of sparse training."""
        return self.config.sparse_epochs

    def step(self, share: float) -> Masks:
        """Remove a share of what is asked for; before the first one, train with the penalty."""
        if not self.trained:
            self.trained = True
            if self.config.sparse_epochs:
                loss = penalised(self.request.loss, self.module, self.config.sparse_penalty)
                masks = self.request.masks(self.module)
                self.request.tune(self.module, "sparse", self.config.sparse_epochs, loss=loss, masks=masks)
        return super().step(share)


def penalised(loss: Loss, module: nn.Module, penalty: float) -> Loss:
    """Return ``loss`` plus ``penalty`` times the sum of the absolute scales of all batch norms of ``module``."""
    scales = [layer.weight for layer in module.modules() if isinstance(layer, NORMS) and layer.weight is not None]

    def sparse(logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        return loss(logits_BK, labels_B, images_BCHW) + penalty * torch.stack([s.abs().sum() for s in scales]).sum()

    return sparse


def score(module: nn.Module, groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """Return the sum of the absolute scales of each channel, [channels], by group."""
    scores = {}
    for name, group in groups.items():
        total = torch.zeros(group.channels)
        for member in group.members:
            if isinstance(member.layer, NORMS) and member.layer.weight is not None:
                total += channels.by_channel(member, member.layer.weight.detach().abs())
        scores[name] = total
    return scores


def _scales(group: ChannelGroup) -> bool:
    return any(isinstance(member.layer, NORMS) and member.layer.weight is not None for member in group.members)
