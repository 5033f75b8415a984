"""L1 channel pruning: the channels with the smallest weights are removed.

Source: Li et al. 2017, section 3.1: a filter's score is the sum of its absolute weights. Deviation: all
layers that lose a weight with the channel count, the consumers' inputs too, as in Fang et al. 2023
(DepGraph), section 3.3, with p = 1.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from kondense.channels.dependencies import ChannelGroup
from kondense.prune import channels
from kondense.prune.method import Method
from kondense.prune.request import Request


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that removes the channels with the smallest weights (see ``channels.prepare``)."""
    return channels.prepare(module, request, score)


def score(module: nn.Module, groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """Return the sum of the absolute weights that leave with each channel, [channels], by group."""
    return {
        name: channels.sum_over_members(group, lambda slices: slices.abs().sum(1)) for name, group in groups.items()
    }
