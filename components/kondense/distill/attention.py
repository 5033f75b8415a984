"""Attention transfer: the student looks where the teacher looks.

Shapes: B images in a batch, C channels, H height, W width.

Source: Zagoruyko and Komodakis 2017, section 3.1, activation-based, equation 2 with p = 2. Deviations: the distance of
two maps is squared, as in the authors' code, and summed over the positions; maps of different sizes are compared at the
smaller one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kondense.distill.feature_loss import Hint, Request
from kondense.distill.features import same_size
from kondense.distill.layer_pairs import pair_by_maps
from kondense.errors import InputError


def prepare(request: Request) -> Hint:
    """Return the part of the loss that compares attention maps (see ``hint.Hint``).

    Raises:
        ValueError: the layers asked for do not exist or do not fit, or have no extent in space.
    """
    pairs = pair_by_maps(request.teacher, request.student, request.image_shape, request.hint_layers)
    for layer in (layer for pair in pairs for layer in (pair.teacher, pair.student)):
        if not layer.is_map:
            raise InputError(
                f"the method attention needs layers with maps larger than 1x1, but {layer.name!r} gives"
                f" {list(layer.shape)}; features and relational take such layers."
            )
    return AttentionHint(pairs)


class AttentionHint(Hint):
    """Compares where in space the layers of each pair are active."""

    def keep(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the mean square over the channels of each of the teacher's maps, [B, 1, H, W]."""
        return [energy(output_BCHW) for output_BCHW in outputs]

    def forward(self, outputs: Sequence[Tensor], kept: Sequence[Tensor]) -> Tensor:
        """Return half the squared distance of the attention maps, summed over the pairs, averaged over the batch."""
        losses = []
        for mine_BCHW, theirs_B1HW in zip(outputs, kept, strict=True):
            mine, theirs = same_size(energy(mine_BCHW), theirs_B1HW)
            losses.append((direction(mine) - direction(theirs)).square().sum(1).mean())
        return 0.5 * torch.stack(losses).sum()


def energy(output_BCHW: Tensor) -> Tensor:
    """Return the mean square over the channels, [B, 1, H, W]."""
    return output_BCHW.float().square().mean(1, keepdim=True)


def direction(energy_B1HW: Tensor) -> Tensor:
    """Return the map as a vector of length 1, [B, H * W]."""
    return F.normalize(energy_B1HW.flatten(1), dim=1)
