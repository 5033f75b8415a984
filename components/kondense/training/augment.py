"""Random crops and flips of a batch of uint8 images, [B, C, H, W]."""

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 2  # pixels on each side, small enough for 28- and 32-pixel images


def augment(images_BCHW: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Return the batch with every image shifted, and for ``crop_flip`` mirrored half the time.

    Args:
        images_BCHW: uint8.
        kind: ``none``, ``crop`` or ``crop_flip``.
        generator: the only source of randomness; on the CPU.
    """
    if kind == "none":
        return images_BCHW
    batch, channels, height, width = images_BCHW.shape
    padded_BCHW = F.pad(images_BCHW, (PADDING,) * 4)
    offsets_2B = torch.randint(0, 2 * PADDING + 1, (2, batch), generator=generator).to(images_BCHW.device)
    rows_BH = offsets_2B[0, :, None] + torch.arange(height, device=images_BCHW.device)
    columns_BW = offsets_2B[1, :, None] + torch.arange(width, device=images_BCHW.device)
    if kind == "crop_flip":
        flipped_B = torch.rand(batch, generator=generator).to(images_BCHW.device) < 0.5
        columns_BW = torch.where(flipped_B[:, None], columns_BW.flip(1), columns_BW)
    index_B = torch.arange(batch, device=images_BCHW.device)[:, None, None]
    # Advanced indices around a slice move to the front: [B, H, W, C].
    return padded_BCHW[index_B, :, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)
