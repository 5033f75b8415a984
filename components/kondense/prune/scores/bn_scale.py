"""Network slimming: trains the scales of batch norms towards zero and removes the channels with the smallest.

Source: Liu et al. 2017, section 3, equation 1 (an L1 penalty on the scales joins the loss) and "channel pruning and
fine-tuning". Deviations: the penalty applies for ``sparse_epochs`` of the fine-tuning, not for all of the training;
scales are compared relative to the mean of their group; if several norms scale a channel, for instance after a
shortcut, their absolute values are summed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import ChannelGroup
from kondense.errors import InputError
from kondense.prune import channels
from kondense.prune.context import Context
from kondense.prune.pruner import Masks, Pruner
from kondense.training.losses import Loss

METHOD = {
    "name": "bn_scale",
    "kind": "channels",
    "summary": "trains batch-norm scales towards zero, removes the channels with the smallest",
    "function": "prepare",
}

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def prepare(module: nn.Module, context: Context) -> Pruner:
    """Return the method that trains with the penalty and then removes the channels with the smallest scales.

    Raises:
        InputError: no channel has a norm with a scale, no epoch remains after the sparse training, or an error of
            ``channels.prepare``.
    """
    config = context.config
    if config.epochs <= config.sparse_epochs:
        raise InputError(
            f"sparse_epochs must be less than epochs ({config.epochs}), which include them, but got"
            f" {config.sparse_epochs}."
        )
    pruner = Slimming(module, context)
    pruner.check()
    return pruner


class Slimming(channels.ChannelPruner):
    """Removes channels by the scales of their norms, after sparse training."""

    def __init__(self, module: nn.Module, context: Context) -> None:
        super().__init__(module, context, score)
        self.trained = False

    def groups(self) -> dict[str, ChannelGroup]:
        """Return the current groups that have a scale."""
        groups = {name: group for name, group in super().groups().items() if _has_scales(group)}
        if not groups:
            raise InputError("bn_scale needs batch norms with a scale after the channels, but there are none.")
        return groups

    def own_epochs(self) -> int:
        """Return the epochs of sparse training."""
        return self.config.sparse_epochs

    def step(self, share: float) -> Masks:
        """Remove a share of the channels; before the first step, train with the penalty."""
        if not self.trained:
            self.trained = True
            if self.config.sparse_epochs:
                session, epochs = self.context.session, self.config.sparse_epochs
                loss = penalised(session.loss, self.module, self.config.sparse_penalty)
                session.train(self.module, "sparse", epochs=epochs, loss=loss, masks=self.context.masks(self.module))
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


def _has_scales(group: ChannelGroup) -> bool:
    return any(isinstance(member.layer, NORMS) and member.layer.weight is not None for member in group.members)
