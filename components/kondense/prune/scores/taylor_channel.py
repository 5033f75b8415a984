"""Taylor channel pruning: removes the channels whose removal changes the loss least, to first order.

Source: Molchanov et al. 2019, section 3.1, equations 7 and 8: the score of a channel is the square of the first-order
change of the loss when a gate on it closes, averaged over batches. Deviation: the gate's gradient is computed as
the sum of gradient x weight over the consumers' inputs, which equals the sum of gradient x activation whatever norms
and activations lie between, and sums over all consumers of a channel.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.channels.dependencies import ChannelGroup, weighted
from kondense.prune.channels import by_channel, weight_slices
from kondense.prune.context import Context

METHOD = {
    "name": "taylor_channel",
    "kind": "channels",
    "summary": "removes the channels whose removal changes the loss least (first-order Taylor)",
    "function": "score",
    "criterion": True,
}
BATCHES = 20
BATCH = 50  # images; the square of a batch's gradient corresponds to that of a sample in the paper


def score(
    module: nn.Module,
    groups: Mapping[str, ChannelGroup],
    context: Context,
    *,
    batches: int = BATCHES,
    batch: int = BATCH,
) -> dict[str, Tensor]:
    """Return the mean square of the first-order change of the loss without each channel, [channels], by group.

    Args:
        module: the network; run in evaluation mode, so that norms behave as at inference; it ends on the CPU.
        groups: its groups.
        context: gives training images, the seed and the loss.
        batches: number of batches.
        batch: images per batch.
    """
    dataset, device, loss = context.dataset, context.device, context.session.loss
    module.eval().to(device)
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(context.config.seed))
    parts = order[: batches * batch].split(batch)
    totals = {name: torch.zeros(group.channels) for name, group in groups.items()}
    for index in parts:
        images_BCHW = dataset.normalise(dataset.train.images[index].to(device))
        module.zero_grad()
        with torch.enable_grad():
            loss(module(images_BCHW), dataset.train.labels[index].to(device), images_BCHW).backward()
        for name, group in groups.items():
            totals[name] += _gate_gradient(group).cpu().square() / len(parts)
    module.zero_grad()
    module.to("cpu")
    return totals


def _gate_gradient(group: ChannelGroup) -> Tensor:
    total = torch.zeros(group.channels)
    for member in group.members:
        if not member.output:
            weight = weighted(member.layer).weight
            gradient = weight.grad
            if gradient is not None:  # None if the layer does not contribute to the loss
                products = weight_slices(member, weight * gradient).sum(1)
                total += by_channel(member, products.cpu())
    return total
