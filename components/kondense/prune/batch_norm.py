"""Re-estimation of batch norm statistics after pruning."""

import torch
from torch import Tensor, nn

from kondense.data.at_once import MOST, at_once
from kondense.data.dataset import Dataset
from kondense.logging import LOG
from kondense.training.device import move

IMAGES = 2_000  # enough for means and variances over images and positions; more changes only the third digit
LEAST = 64  # images of a batch, from whose statistics those of the later layers follow


@torch.no_grad()
def reestimate(
    module: nn.Module, dataset: Dataset, *, seed: int, device: str | torch.device = "cpu", images: int = IMAGES
) -> None:
    """Set the running statistics of every batch norm to those of training images, in place.

    With the previous statistics, the accuracy after a removal of channels is often near chance.

    Args:
        module: the network; it ends on the CPU in evaluation mode.
        dataset: gives the images, from its training split.
        seed: of the choice of images.
        device: computes the statistics.
        images: the most images.

    Source: Li et al. 2020 (EagleEye), section 3.4, adaptive batch normalization.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    module.eval()
    if not norms:
        return
    images_u8 = dataset.train.images
    chosen = torch.randperm(len(images_u8), generator=torch.Generator().manual_seed(seed))[:images]
    if len(chosen) < 2:
        LOG.warning("batch norms keep their statistics: one training image has no variance.")
        return
    momenta = [norm.momentum for norm in norms]
    parts: dict[nn.Module, list[Part]] = {norm: [] for norm in norms}
    size = max(LEAST, at_once(dataset.shape))
    even = size == MOST and len(chosen) % size == 0
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None if even else 1.0  # the plain average over all batches, or each batch's own statistics
        norm.train()
    hooks = [
        norm.register_forward_hook(lambda norm, inputs, _: parts[norm].append(_part(norm, inputs[0]))) for norm in norms
    ]
    move(module, device)
    for index in chosen.tensor_split(-(-len(chosen) // size)):  # of nearly equal size, none of one image
        module(dataset.normalise(images_u8[index].to(device)))
    move(module, "cpu")
    for hook in hooks:
        hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if not even and parts[norm]:
            _pool(norm, parts[norm])
    module.eval()


Part = tuple[int, Tensor, Tensor]  # values per channel, their mean [C] and variance [C] in one batch


def _part(norm: nn.Module, inputs: Tensor) -> Part:
    mean_C, var_C = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    return inputs.numel() // len(mean_C), mean_C.double().cpu(), var_C.double().cpu()


def _pool(norm: nn.Module, parts: list[Part]) -> None:
    """Set the statistics of a norm to the mean and the variance over all values of all batches."""
    counts = torch.tensor([count for count, _, _ in parts], dtype=torch.float64).unsqueeze(1)
    means_BC, vars_BC = torch.stack([mean for _, mean, _ in parts]), torch.stack([var for _, _, var in parts])
    mean_C = (counts * means_BC).sum(0) / counts.sum()
    squares_C = ((counts - 1.0) * vars_BC + counts * (means_BC - mean_C).square()).sum(0)
    norm.get_buffer("running_mean").copy_(mean_C)
    norm.get_buffer("running_var").copy_(squares_C / (counts.sum() - 1.0))
