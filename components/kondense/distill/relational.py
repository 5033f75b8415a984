"""Relational distillation: the student matches the teacher's distances and angles between images.

Shapes: B images in a batch, D features.

Source: Park et al. 2019 (RKD), sections 3.2.1 and 3.2.2: RKD-DA, distances and angles weighted 1 : 2. Deviation: angles
are taken among the first ``ANGLE_IMAGES`` images of a batch, because their number is cubic.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kondense.distill.feature_loss import Context, FeatureLoss
from kondense.distill.layer_pairs import pair_last

METHOD = {
    "name": "relational",
    "kind": "layers",
    "summary": "matches distances and angles between images",
    "function": "prepare",
    "hint_weight": 10.0,
}

ANGLE_IMAGES = 64
ANGLE_WEIGHT = 2.0  # relative to the distances


def prepare(context: Context) -> FeatureLoss:
    """Return the loss on relations between images.

    Raises:
        InputError: the layers do not exist or do not fit.
    """
    return RelationalLoss(pair_last(context.teacher, context.student, context.image_shape, context.hint_layers))


class RelationalLoss(FeatureLoss):
    """Compares the geometry of a batch; the sizes of the outputs may differ."""

    def forward(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Return the mean over the pairs of the loss of distances and twice the loss of angles."""
        losses = []
        for output, target in zip(outputs, targets, strict=True):
            output_BD, target_BD = output.flatten(1).float(), target.flatten(1).float()
            losses.append(F.smooth_l1_loss(distances(output_BD), distances(target_BD)))
            angle_loss = F.smooth_l1_loss(angles(output_BD[:ANGLE_IMAGES]), angles(target_BD[:ANGLE_IMAGES]))
            losses.append(ANGLE_WEIGHT * angle_loss)
        return torch.stack(losses).sum() / len(self.pairs)


def distances(features_BD: Tensor) -> Tensor:
    """Return the distances between all images, divided by their mean over the distinct ones, [B, B].

    One image alone has none: its distance to itself, 0, is returned.
    """
    if len(features_BD) < 2:
        return features_BD.new_zeros(len(features_BD), len(features_BD))
    squares_B = features_BD.square().sum(1)
    squared_BB = squares_B[:, None] + squares_B[None, :] - 2.0 * features_BD @ features_BD.T
    # The root has no finite derivative at 0, the distance of an image to itself.
    distinct_BB = ~torch.eye(len(features_BD), dtype=torch.bool, device=features_BD.device)
    distance_BB = squared_BB.clamp_min(1e-12).sqrt() * distinct_BB
    return distance_BB / distance_BB[distinct_BB].mean().clamp_min(1e-12)


def angles(features_BD: Tensor) -> Tensor:
    """Return the cosine of the angle at image i between images j and k, [B, B, B]."""
    directions_BBD = F.normalize(features_BD[None, :, :] - features_BD[:, None, :], dim=2)
    return directions_BBD @ directions_BBD.transpose(1, 2)
