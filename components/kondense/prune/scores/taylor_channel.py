"""Taylor channel pruning: the channels whose loss the training images say least about are removed.

Source: Molchanov et al. 2019, section 3.1, equations 7 and 8: a channel's score is the square of the first-order
change of the loss when a gate on it closes, averaged over batches. Deviation: the gate's gradient is computed as
the sum of gradient x weight over the inputs that read the channel, which is the sum of gradient x activation
whatever norms and activations lie between, and counts a channel that several layers read with all of them.
"""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import WEIGHTED, ChannelGroup
from kondense.prune import channels
from kondense.prune.method import Method
from kondense.prune.request import Request

BATCHES = 20
BATCH = 50  # images; a batch is to the square what a sample is in the paper


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that removes the channels with the least effect (see ``channels.prepare``)."""
    return channels.prepare(module, request, functools.partial(score, request=request))


def score(module: nn.Module, groups: Mapping[str, ChannelGroup], request: Request) -> dict[str, Tensor]:
    """Return the mean square of the first-order change of the loss without each channel, [channels], by group.

    Args:
        module: the network; in evaluation mode, so that norms are as at inference; it ends on the CPU.
        groups: its groups.
        request: gives the images, drawn from the training split, the seed and the loss.
    """
    dataset, device = request.dataset, request.device
    module.eval().to(device)
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(request.config.seed))
    batches = order[: BATCHES * BATCH].split(BATCH)
    totals = {name: torch.zeros(group.channels) for name, group in groups.items()}
    for index in batches:
        images_BCHW = dataset.normalise(dataset.train.images[index].to(device))
        module.zero_grad()
        with torch.enable_grad():
            request.loss(module(images_BCHW), dataset.train.labels[index].to(device), images_BCHW).backward()
        for name, group in groups.items():
            totals[name] += _gate_gradient(group).cpu().square() / len(batches)
    module.zero_grad()
    module.to("cpu")
    return totals


def _gate_gradient(group: ChannelGroup) -> Tensor:
    total = torch.zeros(group.channels)
    for member in group.members:
        if not member.output:
            assert isinstance(member.layer, WEIGHTED)
            weight, gradient = member.layer.weight, member.layer.weight.grad
            if gradient is not None:  # None where the layer had no part in the loss
                products = channels.weight_slices(member, weight * gradient).sum(1)
                total += channels.by_channel(member, products.cpu())
    return total
