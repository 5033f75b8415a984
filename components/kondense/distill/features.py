"""Hints: the student's layers, seen through learnt 1x1 convolutions, imitate the teacher's.

Shapes: B images in a batch, C channels, H height, W width, F features; suffix s for the student, t for the teacher.

Source: Romero et al. 2015 (FitNets), section 2.2. Deviations: several pairs; hints and logits are imitated at the same
time instead of in two phases; the squared error of a pair is divided by the mean square of the teacher's outputs, so
that its weight does not depend on their scale.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.distill.feature_loss import Hint, Request
from kondense.distill.layer_pairs import Pair, pair_by_maps


def prepare(request: Request) -> Hint:
    """Return the part of the loss that compares layers through adapters (see ``hint.Hint``).

    Raises:
        ValueError: the layers asked for do not exist or do not fit.
    """
    return FeatureHint(
        pair_by_maps(request.teacher, request.student, request.image_shape, request.hint_layers), seed=request.seed
    )


class FeatureHint(Hint):
    """One adapter per pair: a 1x1 convolution, which for features [B, F] is a fully connected layer."""

    def __init__(self, pairs: Sequence[Pair], *, seed: int) -> None:
        super().__init__(pairs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapters = nn.ModuleList(
                nn.Conv2d(pair.student.shape[0], pair.teacher.shape[0], 1) for pair in self.pairs
            )

    def forward(self, outputs: Sequence[Tensor], kept: Sequence[Tensor]) -> Tensor:
        """Return the mean over the pairs of the relative squared error of the adapted outputs."""
        losses = [
            relative_error(*same_size(adapter(as_map(mine)).float(), as_map(theirs).float()))
            for adapter, mine, theirs in zip(self.adapters, outputs, kept, strict=True)
        ]
        return torch.stack(losses).mean()


def relative_error(mine: Tensor, theirs: Tensor) -> Tensor:
    """Return the squared error as a fraction of the mean square of ``theirs``."""
    return F.mse_loss(mine, theirs) / theirs.square().mean().clamp_min(1e-12)


def as_map(outputs: Tensor) -> Tensor:
    """Return features [B, F] as maps of one pixel, [B, F, 1, 1], and maps as they are."""
    return outputs if outputs.ndim == 4 else outputs[:, :, None, None]


def same_size(mine_BCHW: Tensor, theirs_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps at the smaller height and width of the two, by average pooling."""
    if mine_BCHW.shape[2:] == theirs_BCHW.shape[2:]:
        return mine_BCHW, theirs_BCHW
    size = [min(sides) for sides in zip(mine_BCHW.shape[2:], theirs_BCHW.shape[2:], strict=True)]
    return F.adaptive_avg_pool2d(mine_BCHW, size), F.adaptive_avg_pool2d(theirs_BCHW, size)
