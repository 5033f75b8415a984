"""Re-estimation of batch norm statistics after pruning."""

import torch
from torch import nn

from kondense.data.dataset import Dataset

IMAGES = 2_000  # enough for means and variances over images and positions; more changes only the third digit
BATCH = 500


@torch.no_grad()
def reestimate(module: nn.Module, dataset: Dataset, *, seed: int, device: str | torch.device = "cpu") -> None:
    """Set the running statistics of every batch norm to those of training images, in place.

    With the previous statistics, the accuracy after a removal of channels is often near chance.

    Args:
        module: the network; it ends on the CPU in evaluation mode.
        dataset: gives the images, from its training split.
        seed: of the choice of images.
        device: computes the statistics.

    Source: Li et al. 2020 (EagleEye), section 3.4, adaptive batch normalization.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    norms = [norm for norm in norms if norm.track_running_stats]
    module.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches
        norm.train()
    images_u8 = dataset.train.images
    chosen = torch.randperm(len(images_u8), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    module.to(device)
    for index in chosen.split(BATCH):
        module(dataset.normalise(images_u8[index].to(device)))
    module.to("cpu")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()
