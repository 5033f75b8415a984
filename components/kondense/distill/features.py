"""Hints: learnt 1x1 convolutions of the student's layers match the teacher's layers.

Shapes: B images in a batch, C channels, H height, W width, F features; suffix s for the student, t for the teacher.

Source: Romero et al. 2015 (FitNets), section 2.2. Deviations: several pairs; hints and logits are trained together
instead of in two phases; the squared error of a pair is relative to the mean square of the teacher's outputs, so that
its weight does not depend on their scale.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.distill.feature_loss import Context, FeatureLoss
from kondense.distill.layer_pairs import Pair, pair_by_maps
from kondense.processes import current

METHOD = {
    "name": "features",
    "kind": "layers",
    "summary": "matches layer outputs through 1x1 convolutions",
    "function": "prepare",
    "hint_weight": 1.0,
}


def prepare(context: Context) -> FeatureLoss:
    """Return the loss on layer outputs, with adapters.

    Raises:
        InputError: the layers do not exist or do not fit.
    """
    return AdaptedLoss(
        pair_by_maps(context.teacher, context.student, context.image_shape, context.hint_layers), seed=context.seed
    )


class AdaptedLoss(FeatureLoss):
    """Has one adapter per pair: a 1x1 convolution, or a linear layer for features [B, F]."""

    def __init__(self, pairs: Sequence[Pair], *, seed: int) -> None:
        super().__init__(pairs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapters = nn.ModuleList(
                nn.Conv2d(pair.student.shape[0], pair.teacher.shape[0], 1) for pair in self.pairs
            )

    def forward(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Return the mean over the pairs of the relative squared error of the adapted outputs."""
        losses = [
            relative_error(*same_size(adapter(as_map(output)).float(), as_map(target).float()))
            for adapter, output, target in zip(self.adapters, outputs, targets, strict=True)
        ]
        return torch.stack(losses).mean()


def relative_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the squared error as a fraction of the mean square of ``target``, in all processes' parts of the batch."""
    square = target.square().mean()
    if current().several:
        total, images = current().sums([float(square) * len(target), float(len(target))])
        square = torch.full_like(square, total / images)
    return F.mse_loss(output, target) / square.clamp_min(1e-12)


def as_map(outputs: Tensor) -> Tensor:
    """Return features [B, F] as maps of one pixel, [B, F, 1, 1], and maps unchanged."""
    return outputs if outputs.ndim == 4 else outputs[:, :, None, None]


def same_size(first_BCHW: Tensor, second_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps at the smaller height and width of the two, by average pooling."""
    if first_BCHW.shape[2:] == second_BCHW.shape[2:]:
        return first_BCHW, second_BCHW
    height, width = (min(sides) for sides in zip(first_BCHW.shape[2:], second_BCHW.shape[2:], strict=True))
    return F.adaptive_avg_pool2d(first_BCHW, (height, width)), F.adaptive_avg_pool2d(second_BCHW, (height, width))
