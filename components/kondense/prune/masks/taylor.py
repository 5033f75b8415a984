"""Taylor pruning: the weights go whose removal changes the loss least, to first order.

Source: Molchanov et al. 2019, section 3.1, equations 4 and 8: the squared product of weight and gradient, averaged
over batches. Deviations: the score is the root of that, so that means over kernels and neurons are of its size;
the batches are the same at every call, and a batch norm keeps its statistics while they pass.
"""

import functools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.prune.masks import masks
from kondense.prune.method import Method
from kondense.prune.request import Request

BATCHES = 8  # scores of weights that matter differ by orders of magnitude; more batches change few masks


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that zeroes the weights with the smallest effect on the loss (see ``masks.prepare``)."""
    return masks.prepare(module, request, functools.partial(score, request=request))


def score(module: nn.Module, weights: Mapping[str, nn.Parameter], request: Request) -> dict[str, Tensor]:
    """Return the root mean square of weight times gradient over batches of the training split, by weight name.

    The module keeps its mode, its gradients and its buffers.
    """
    dataset, device = request.dataset, next(module.parameters()).device
    training, gradients = module.training, {name: weight.grad for name, weight in module.named_parameters()}
    module.eval()
    totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(request.config.seed))
    batches = order.split(request.config.batch_size)[:BATCHES]
    for index_B in batches:
        images_BCHW = dataset.normalise(dataset.train.images[index_B].to(device))
        with torch.enable_grad():
            loss = request.loss(module(images_BCHW), dataset.train.labels[index_B].to(device), images_BCHW)
            found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), found, strict=True):
            if gradient is not None:
                totals[name] += (weight.detach() * gradient).square() / len(batches)
    module.train(training)
    for name, weight in module.named_parameters():
        weight.grad = gradients[name]
    return {name: total.sqrt() for name, total in totals.items()}
