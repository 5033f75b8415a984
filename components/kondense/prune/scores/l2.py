"""L2 channel pruning: removes the channels with the smallest weights in the Euclidean norm.

Source: Fang et al. 2023 (DepGraph), section 3.3, equation 4 with p = 2: the sum of the squares of all weights that are
removed with a channel, also in the consumers' inputs. Deviation: the root of that sum, which ranks the channels of a
group alike and has the unit of a weight.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from kondense.channels.dependencies import ChannelGroup
from kondense.prune.channels import sum_over_members

METHOD = {
    "name": "l2",
    "kind": "channels",
    "summary": "removes the channels with the smallest L2 norm",
    "function": "score",
    "criterion": True,
}


def score(module: nn.Module, groups: Mapping[str, ChannelGroup]) -> dict[str, Tensor]:
    """Return the Euclidean norm of the weights that are removed with each channel, [channels], by group."""
    return {
        name: sum_over_members(group, lambda slices: slices.square().sum(1)).sqrt() for name, group in groups.items()
    }
