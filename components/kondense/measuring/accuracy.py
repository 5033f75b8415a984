"""Predictions and accuracy of a network on a split.

Shapes: N images, K classes.
"""

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kondense.data.at_once import MOST, at_once
from kondense.data.dataset import Dataset, Split
from kondense.measuring.memory_format import fastest_format, memory_format_of
from kondense.networks.outputs import doubts, untrained
from kondense.processes import current

FEW = 4  # images that tell whether logits are those of one image
TRIED = 2  # images on which memory formats are tried
MANY = 32  # images for which it is worth while to try another memory format


def predict(
    module: nn.Module, split: Split, dataset: Dataset, *, batch_size: int = MOST, device: str | torch.device = "cpu"
) -> Tensor:
    """Return the network's logits on a split, float32 [N, K] on the CPU.

    The network runs in evaluation mode and keeps its mode. It runs in the memory format of its weights, many large
    images on the CPU in channels_last, if it takes that. Of several processes, each predicts a part of the images, and
    all return the logits of all.

    Args:
        module: the network, on ``device``.
        split: the images.
        dataset: gives the normalisation.
        batch_size: most images at a time; large ones are fewer (``kondense.data.at_once``).
        device: the device of the network.
    """
    was_training, batch_size = module.training, at_once(dataset.shape, batch_size)
    module.eval()
    processes, logits = current(), []
    shared = processes.several and len(split) >= processes.count
    parts: Iterable[Tensor] = split.images.split(batch_size)
    if shared:
        own = torch.tensor(processes.part(len(split))).split(batch_size)
        images = split.images
        parts = (images[index] for index in own) if isinstance(images, Tensor) else images.batches(own)
    with contextlib.ExitStack() as stack:
        stack.callback(module.train, was_training)
        memory_format = memory_format_of(module)
        if torch.device(device).type == "cpu" and len(split) >= MANY:
            few_u8 = next(iter(split.images.split(TRIED)))
            memory_format = stack.enter_context(fastest_format(module, dataset.normalise(few_u8)))
        with torch.inference_mode():
            for images_u8 in parts:
                images_NCHW = dataset.normalise(images_u8.to(device)).contiguous(memory_format=memory_format)
                logits.append(module(images_NCHW).float().cpu())
    return processes.gathered(torch.cat(logits), len(split)) if shared else torch.cat(logits)


def doubts_on(module: nn.Module, split: Split, dataset: Dataset) -> list[str]:
    """Return what is wrong with a network on the CPU: its logits, parameters that cannot be trained.

    See ``doubts`` and ``untrained`` of ``kondense.networks.outputs``.
    """
    was_training, few_u8 = module.training, next(iter(split.images.split(FEW)))
    images_NCHW = dataset.normalise(few_u8).contiguous(memory_format=memory_format_of(module))
    try:
        found = doubts(module.eval(), images_NCHW)
        idle = untrained(module, images_NCHW)
        return [*found, idle] if idle else found
    finally:
        module.train(was_training)


def accuracy(logits_NK: Tensor, labels_N: Tensor) -> float:
    """Return the fraction of images whose largest logit is that of their label."""
    return float((logits_NK.argmax(1) == labels_N).double().mean())
