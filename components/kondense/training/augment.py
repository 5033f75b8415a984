"""Random changes of a batch, [B, C, H, W]: of single uint8 images, and of normalised images with their labels.

Every one takes its randomness from the generator of the step, or from the global one, which the training loop seeds
for every step; so a run that is resumed sees the images of an uninterrupted one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 2  # pixels on each side, small enough for 28- and 32-pixel images
LARGE = 2**14  # pixels of an image
LEAST_AREA = 0.25  # of a resized crop; torchvision's 0.08 is for ImageNet and many epochs
MIXUP_ALPHA, CUTMIX_ALPHA = 0.2, 1.0  # of the beta distribution, as in torchvision's recipes


def augment(images_BCHW: Tensor, names: Sequence[str], generator: torch.Generator) -> Tensor:
    """Return the batch with every image shifted, mirrored half the time, cropped and resized, or changed in colour.

    Args:
        images_BCHW: uint8; it may be changed.
        names: of ``kondense.training.settings.IMAGE_AUGMENTATIONS``; others are ignored.
        generator: the source of randomness of crops and flips; on the CPU.
    """
    if "crop" in names:
        images_BCHW = _shifted(images_BCHW, generator, flip="flip" in names)
    elif "flip" in names:
        flipped_B = torch.rand(len(images_BCHW), generator=generator).to(images_BCHW.device) < 0.5
        images_BCHW = _mirrored(images_BCHW, flipped_B)
    if not {"resized_crop", "rand_augment"} & set(names):
        return images_BCHW
    from torchvision.transforms import v2  # takes seconds to import

    size = list(images_BCHW.shape[2:])
    transforms: list[v2.Transform] = []
    if "resized_crop" in names:
        transforms.append(v2.RandomResizedCrop(size, scale=(LEAST_AREA, 1.0), antialias=True))
    if "rand_augment" in names:
        transforms.append(v2.RandAugment())
    for transform in transforms:  # one image at a time: they draw once per call
        images_BCHW = torch.stack([transform(image_CHW) for image_CHW in images_BCHW])
    return images_BCHW


def mix(images_BCHW: Tensor, labels_B: Tensor, names: Sequence[str], classes: int) -> tuple[Tensor, Tensor]:
    """Return a normalised batch with images mixed in pairs, and the probabilities of the classes, [B, K].

    Args:
        images_BCHW: normalised.
        labels_B: the labels; they are returned if ``names`` has neither mixup nor cutmix.
        names: of ``kondense.training.settings.BATCH_AUGMENTATIONS``; one of several is drawn for each batch.
        classes: number of classes.
    """
    if not {"mixup", "cutmix"} & set(names):
        return images_BCHW, labels_B
    from torchvision.transforms import v2  # takes seconds to import

    kinds: list[v2.Transform] = []
    if "mixup" in names:
        kinds.append(v2.MixUp(alpha=MIXUP_ALPHA, num_classes=classes))
    if "cutmix" in names:
        kinds.append(v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=classes))
    mixed, labels_BK = v2.RandomChoice(kinds)(images_BCHW, labels_B)
    return mixed, labels_BK


def _mirrored(images_BCHW: Tensor, flipped_B: Tensor) -> Tensor:
    """Return the batch with the marked images mirrored; large ones in place, as new memory costs more than that."""
    if images_BCHW.device.type != "cpu" or images_BCHW[0].numel() < LARGE:
        return torch.where(flipped_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)
    for row in flipped_B.nonzero()[:, 0].tolist():
        images_BCHW[row] = images_BCHW[row].flip(2)
    return images_BCHW


def _shifted(images_BCHW: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    batch, _, height, width = images_BCHW.shape
    padded_BCHW = F.pad(images_BCHW, (PADDING,) * 4)
    offsets_2B = torch.randint(0, 2 * PADDING + 1, (2, batch), generator=generator).to(images_BCHW.device)
    rows_BH = offsets_2B[0, :, None] + torch.arange(height, device=images_BCHW.device)
    columns_BW = offsets_2B[1, :, None] + torch.arange(width, device=images_BCHW.device)
    if flip:
        flipped_B = torch.rand(batch, generator=generator).to(images_BCHW.device) < 0.5
        columns_BW = torch.where(flipped_B[:, None], columns_BW.flip(1), columns_BW)
    index_B = torch.arange(batch, device=images_BCHW.device)[:, None, None]
    # Advanced indices around a slice move to the front: [B, H, W, C].
    return padded_BCHW[index_B, :, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)
