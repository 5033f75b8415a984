"""Relational distillation: the student keeps the distances and angles that the teacher sees between the images.

Shapes: B images in a batch, D features.

Source: Park et al. 2019 (RKD), sections 3.2.1 and 3.2.2: RKD-DA, distances and angles weighted 1 : 2. Deviation: angles
are taken among the first ``ANGLE_IMAGES`` images of a batch, because their number grows with its cube.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kondense.distill.feature_loss import Hint, Request
from kondense.distill.layer_pairs import pair_last

ANGLE_IMAGES = 64
ANGLE_WEIGHT = 2.0  # to that of the distances, 1


def prepare(request: Request) -> Hint:
    """Return the part of the loss that compares relations between images (see ``hint.Hint``).

    Raises:
        ValueError: the layers asked for do not exist or do not fit.
    """
    return RelationalHint(pair_last(request.teacher, request.student, request.image_shape, request.hint_layers))


class RelationalHint(Hint):
    """Compares the geometry of a batch; the outputs' sizes need not agree."""

    def forward(self, outputs: Sequence[Tensor], kept: Sequence[Tensor]) -> Tensor:
        """Return the mean over the pairs of the loss of distances and twice the loss of angles."""
        losses = []
        for mine, theirs in zip(outputs, kept, strict=True):
            mine_BD, theirs_BD = mine.flatten(1).float(), theirs.flatten(1).float()
            losses.append(F.smooth_l1_loss(distances(mine_BD), distances(theirs_BD)))
            angle_loss = F.smooth_l1_loss(angles(mine_BD[:ANGLE_IMAGES]), angles(theirs_BD[:ANGLE_IMAGES]))
            losses.append(ANGLE_WEIGHT * angle_loss)
        return torch.stack(losses).sum() / len(self.pairs)


def distances(features_BD: Tensor) -> Tensor:
    """Return the distances between all images, divided by their mean over the distinct ones, [B, B]."""
    squares_B = features_BD.square().sum(1)
    squared_BB = squares_B[:, None] + squares_B[None, :] - 2.0 * features_BD @ features_BD.T
    # The root has no finite slope at 0, where an image meets itself.
    distinct_BB = ~torch.eye(len(features_BD), dtype=torch.bool, device=features_BD.device)
    found_BB = squared_BB.clamp_min(1e-12).sqrt() * distinct_BB
    return found_BB / found_BB[distinct_BB].mean().clamp_min(1e-12)


def angles(features_BD: Tensor) -> Tensor:
    """Return the cosine of the angle at image i between images j and k, [B, B, B]."""
    directions_BBD = F.normalize(features_BD[None, :, :] - features_BD[:, None, :], dim=2)
    return directions_BBD @ directions_BBD.transpose(1, 2)
