"""L2 channel pruning: the channels with the smallest weights in the Euclidean norm are removed.

Source: Fang et al. 2023 (DepGraph), section 3.3, equation 4 with p = 2: the squares of all weights that leave
with a channel are added up, the consumers' inputs too. Deviation: the root of that sum, which ranks the channels
of a group alike and keeps the score in the units of a weight.
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
    """Return the Euclidean norm of the weights that leave with each channel, [channels], by group."""
    return {
        name: channels.sum_over_members(group, lambda slices: slices.square().sum(1)).sqrt()
        for name, group in groups.items()
    }
