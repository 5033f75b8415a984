"""L1 channel pruning: the channels with the smallest weights are removed.

Source: Li et al. 2017, section 3.1: a filter's score is the sum of its absolute weights. Deviation: all
layers that lose a weight with the channel count, the consumers' inputs too, as in Fang et al. 2023
(DepGraph), section 3.3, with p = 1.
"""

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Group as Dependencies

from components.prune import channels
from components.prune.method import Method
from components.prune.request import Request


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that removes the channels with the smallest weights (see ``channels.prepare``)."""
    return channels.prepare(module, request, score)


@torch.no_grad()
def score(group: Dependencies) -> Tensor:
    """Return the sum of the absolute weights that leave with each channel, [channels]."""
    total = torch.zeros(channels.channel_count(group))
    for item in group:
        layer = item.dep.layer
        if isinstance(layer, nn.Conv2d | nn.Linear):
            output = channels.shrinks_outputs(item.dep)
            slices = layer.weight if output else layer.weight.transpose(0, 1)  # [O, I, ...] or [I, O, ...]
            total.index_add_(0, torch.tensor(item.root_idxs), slices.flatten(1).abs().sum(1)[item.idxs])
    return total
