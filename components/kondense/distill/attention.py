"""Attention transfer: the student's maps are active in the same places as the teacher's.

Shapes: B images in a batch, C channels, H height, W width.

Source: Zagoruyko and Komodakis 2017, section 3.1, activation-based, equation 2 with p = 2. Deviations: the distance of
two maps is squared, as in the authors' code, and summed over the positions; maps of different sizes are compared at the
smaller one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kondense.distill.feature_loss import Context, FeatureLoss
from kondense.distill.features import same_size
from kondense.distill.layer_pairs import pair_by_maps
from kondense.errors import InputError

METHOD = {
    "name": "attention",
    "kind": "layers",
    "summary": "matches spatial attention maps",
    "function": "prepare",
    "hint_weight": 10.0,
}


def prepare(context: Context) -> FeatureLoss:
    """Return the loss on attention maps.

    Raises:
        InputError: the layers do not exist, do not fit, or have maps of one pixel.
    """
    pairs = pair_by_maps(context.teacher, context.student, context.image_shape, context.hint_layers)
    for layer in (layer for pair in pairs for layer in (pair.teacher, pair.student)):
        if not layer.is_map:
            raise InputError(
                f"method attention needs layers with maps larger than 1x1, but the output of {layer.name!r} is"
                f" {list(layer.shape)}; features and relational accept such layers."
            )
    return AttentionLoss(pairs)


class AttentionLoss(FeatureLoss):
    """Compares the spatial distribution of activity in each pair of layers."""

    def targets(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the mean square over the channels of each of the teacher's maps, [B, 1, H, W]."""
        return [energy(output_BCHW) for output_BCHW in outputs]

    def forward(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Return half the squared distance of the attention maps, summed over the pairs, averaged over the batch."""
        losses = []
        for output_BCHW, target_B1HW in zip(outputs, targets, strict=True):
            student_BP, teacher_BP = map(direction, same_size(energy(output_BCHW), target_B1HW))
            losses.append((student_BP - teacher_BP).square().sum(1).mean())
        return 0.5 * torch.stack(losses).sum()


def energy(output_BCHW: Tensor) -> Tensor:
    """Return the mean square over the channels, [B, 1, H, W]."""
    return output_BCHW.float().square().mean(1, keepdim=True)


def direction(energy_B1HW: Tensor) -> Tensor:
    """Return the map as a vector of length 1, [B, H * W]."""
    return F.normalize(energy_B1HW.flatten(1), dim=1)
