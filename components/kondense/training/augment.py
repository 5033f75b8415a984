"""Random changes of a batch, [B, C, H, W]: of single uint8 images, and of normalised images with their labels.

Every one takes its randomness from the generator of the step, or from the global one, which the training loop seeds
for every step; so a run that is resumed sees the images of an uninterrupted one.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 2  # pixels on each side, small enough for 28- and 32-pixel images
LARGE = 2**14  # pixels of an image
LEAST_AREA = 0.25  # of a resized crop; torchvision's 0.08 is for ImageNet and many epochs
SMALL = 8  # pixels of an image that is changed for the random numbers alone
MIXUP_ALPHA, CUTMIX_ALPHA = 0.2, 1.0  # of the beta distribution, as in torchvision's recipes


@dataclasses.dataclass(frozen=True)
class Rows:
    """The images of a batch that one of several processes has.

    Attributes:
        index: their positions in the batch, in the order in which they are given.
        batch: number of images in the whole batch.
    """

    index: tuple[int, ...]
    batch: int


def augment(images_BCHW: Tensor, names: Sequence[str], generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Return the batch with every image shifted, mirrored half the time, cropped and resized, or changed in colour.

    Args:
        images_BCHW: uint8; it may be changed.
        names: of ``kondense.training.settings.IMAGE_AUGMENTATIONS``; others are ignored.
        generator: the source of randomness of crops and flips; on the CPU.
        rows: which images of the batch these are; they come out as if the whole batch were given. None: all.
    """
    rows = rows or Rows(tuple(range(len(images_BCHW))), len(images_BCHW))
    if "crop" in names:
        images_BCHW = _shifted(images_BCHW, generator, rows, flip="flip" in names)
    elif "flip" in names:
        images_BCHW = _mirrored(images_BCHW, _flipped(generator, rows).to(images_BCHW.device))
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
        images_BCHW = _transformed(images_BCHW, transform, rows)
    return images_BCHW


def _transformed(images_BCHW: Tensor, transform: Any, rows: Rows) -> Tensor:
    """Return the images transformed one by one; for those of the batch that are not given, random numbers are drawn."""
    places = {row: place for place, row in enumerate(rows.index)}
    done: list[Tensor] = [images_BCHW[0]] * len(rows.index)
    for row in range(rows.batch):
        if row in places:
            done[places[row]] = transform(images_BCHW[places[row]])
        elif hasattr(transform, "scale"):
            transform.make_params([images_BCHW[0]])  # a crop's draws depend on the size
        else:
            transform(images_BCHW[0, :, :SMALL, :SMALL])
    return torch.stack(done)


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


def _flipped(generator: torch.Generator, rows: Rows) -> Tensor:
    return torch.rand(rows.batch, generator=generator)[list(rows.index)] < 0.5


def _shifted(images_BCHW: Tensor, generator: torch.Generator, rows: Rows, *, flip: bool) -> Tensor:
    batch, _, height, width = images_BCHW.shape
    padded_BCHW = F.pad(images_BCHW, (PADDING,) * 4)
    offsets_2B = torch.randint(0, 2 * PADDING + 1, (2, rows.batch), generator=generator)[:, list(rows.index)]
    offsets_2B = offsets_2B.to(images_BCHW.device)
    rows_BH = offsets_2B[0, :, None] + torch.arange(height, device=images_BCHW.device)
    columns_BW = offsets_2B[1, :, None] + torch.arange(width, device=images_BCHW.device)
    if flip:
        flipped_B = _flipped(generator, rows).to(images_BCHW.device)
        columns_BW = torch.where(flipped_B[:, None], columns_BW.flip(1), columns_BW)
    index_B = torch.arange(batch, device=images_BCHW.device)[:, None, None]
    # Advanced indices around a slice move to the front: [B, H, W, C].
    return padded_BCHW[index_B, :, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)
