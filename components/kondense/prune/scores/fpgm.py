"""FPGM: the channels whose filters lie nearest to the geometric median of their layer are removed.

What lies in the middle can be made up for by the others, however large it is.

Source: He et al. 2019, section 3.3, equation 5: the filters that minimise the sum of the distances to all filters
of the layer. Deviation: where a shortcut adds up several layers, the distances are summed over these layers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import WEIGHTED, ChannelGroup
from kondense.prune import channels
from kondense.prune.method import Method
from kondense.prune.request import Request


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that removes the channels in the middle of the others (see ``channels.prepare``)."""
    return channels.prepare(module, request, score)


def score(module: nn.Module, groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """Return the sum of the distances of each filter to the others of its layer, [channels], by group."""
    scores = {}
    for name, group in groups.items():
        total = torch.zeros(group.channels)
        for member in group.members:
            if member.output and isinstance(member.layer, WEIGHTED):
                filters = channels.weight_slices(member)
                total += channels.by_channel(member, torch.cdist(filters, filters).sum(1))
        scores[name] = total
    return scores
