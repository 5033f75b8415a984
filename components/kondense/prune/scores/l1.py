"""L1 channel pruning: removes the channels with the smallest weights.

Source: Li et al. 2017, section 3.1: the score of a filter is the sum of its absolute weights. Deviation: it includes
all layers that lose a weight with the channel, also the inputs of the consumers, as in Fang et al. 2023 (DepGraph),
section 3.3, with p = 1.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from kondense.channels.dependencies import ChannelGroup
from kondense.prune.channels import sum_over_members

METHOD = {
    "name": "l1",
    "kind": "channels",
    "summary": "removes the channels with the smallest L1 norm",
    "function": "score",
    "criterion": True,
}


def score(module: nn.Module, groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """Return the sum of the absolute weights that are removed with each channel, [channels], by group."""
    return {name: sum_over_members(group, lambda slices: slices.abs().sum(1)) for name, group in groups.items()}
