"""FPGM: removes the channels whose filters are closest to the geometric median of their layer.

The other filters can represent such a filter, however large its weights are.

Source: He et al. 2019, section 3.3, equation 5: the filters that minimise the sum of the distances to all filters
of the layer. Deviation: where a shortcut adds the outputs of several layers, their distances are summed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import WEIGHTED, ChannelGroup
from kondense.prune.channels import by_channel, weight_slices

METHOD = {
    "name": "fpgm",
    "kind": "channels",
    "summary": "removes the channels closest to the geometric median of their layer",
    "function": "score",
    "criterion": True,
}


def score(module: nn.Module, groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """Return the sum of the distances of each filter to the others of its layer, [channels], by group."""
    scores = {}
    for name, group in groups.items():
        total = torch.zeros(group.channels)
        for member in group.members:
            if member.output and isinstance(member.layer, WEIGHTED):
                filters = weight_slices(member)
                total += by_channel(member, torch.cdist(filters, filters).sum(1))
        scores[name] = total
    return scores
