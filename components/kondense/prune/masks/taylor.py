"""Taylor pruning: zeroes the weights whose removal changes the loss least, to first order.

Source: Molchanov et al. 2019, section 3.1, equations 4 and 8: the squared product of weight and gradient, averaged
over batches. Deviations: the score is the root of that, so that means over kernels and neurons have its unit;
every call uses the same batches, in evaluation mode.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.prune.context import Context

METHOD = {
    "name": "taylor",
    "kind": "weights",
    "summary": "zeroes the weights whose removal changes the loss least (first-order Taylor)",
    "function": "score",
    "layer_adaptive": True,
}
BATCHES = 8  # scores of important weights differ by orders of magnitude; more batches change few masks


def score(module: nn.Module, weights: Mapping[str, nn.Parameter], context: Context) -> dict[str, Tensor]:
    """Return the root mean square of weight times gradient over training batches, by weight name.

    The module keeps its mode, its gradients and its buffers.
    """
    dataset, device = context.dataset, next(module.parameters()).device
    training, gradients = module.training, {name: weight.grad for name, weight in module.named_parameters()}
    module.eval()
    totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(context.config.seed))
    batches = order.split(context.config.batch_size)[:BATCHES]
    for index_B in batches:
        images_BCHW = dataset.normalise(dataset.train.images[index_B].to(device))
        with torch.enable_grad():
            logits_BK, labels_B = module(images_BCHW), dataset.train.labels[index_B].to(device)
            loss = context.session.loss(logits_BK, labels_B, images_BCHW)
            derivatives = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), derivatives, strict=True):
            if gradient is not None:
                totals[name] += (weight.detach() * gradient).square() / len(batches)
    module.train(training)
    for name, weight in module.named_parameters():
        weight.grad = gradients[name]
    return {name: total.sqrt() for name, total in totals.items()}
