"""One training step in several processes: each has the network, and gradients are averaged.

Shapes: B images of this process, C channels, H height, W width.
"""

import contextlib
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kondense.processes import current
from kondense.training.synchronised import SynchronisedBatchNorms

StepLoss = Callable[[Tensor, Tensor], Tensor]  # normalised images [B, C, H, W] and labels -> scalar


class Replica(nn.Module):
    """The network and the objective, whose ``forward`` is the loss of a step: what DistributedDataParallel wraps."""

    def __init__(self, module: nn.Module, objective: nn.Module, loss: StepLoss, *, synchronise: bool) -> None:
        super().__init__()
        self.module, self.objective, self.loss, self.synchronise = module, objective, loss, synchronise

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return the loss of this process's images."""
        with SynchronisedBatchNorms() if self.synchronise else contextlib.nullcontext():
            return self.loss(images_BCHW, labels_B)


def replicated(module: nn.Module, objective: nn.Module, loss: StepLoss, *, synchronise: bool) -> StepLoss:
    """Return the loss whose gradients become the mean over the processes.

    Weights and buffers are set to those of the first process, the network's buffers before every step, too: without
    ``synchronise`` each process's batch norms see its own images, and the first one's running statistics count.

    Raises:
        KondenseError: the processes have different networks; in each of them, so that none waits for another.
    """
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    current().check_alike([f"{name} {list(each.shape)} {each.dtype}" for name, each in tensors], "network")
    replica = Replica(module, objective, loss, synchronise=synchronise)
    # An objective's buffers, such as the targets of a penalty, change alike in all processes and can be large.
    ignored = [f"objective.{name}" for name, _ in objective.named_buffers()]
    ignored += [f"module.{name}" for name, each in module.named_buffers() if each.dtype is torch.bool]  # gloo has none
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(replica, ignored)
    # Auxiliary heads, or layers that are dropped at random, may have no gradient in a step.
    return DistributedDataParallel(replica, find_unused_parameters=True)
