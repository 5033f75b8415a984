"""The part of the student's loss that compares its inner layers with a teacher's.

Shapes: B images in a batch.
"""

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from kondense.distill.layer_pairs import Pair


@dataclasses.dataclass(frozen=True)
class Context:
    """The inputs of a distillation method.

    Attributes:
        teacher: the first teacher.
        student: the network to train.
        image_shape: shape of one image, (C, H, W).
        hint_layers: the pairs of layers to compare; empty: chosen by the method.
        seed: of the weights of adapters.
    """

    teacher: nn.Module
    student: nn.Module
    image_shape: tuple[int, int, int]
    hint_layers: str = ""
    seed: int = 0


class FeatureLoss(nn.Module):
    """A method's part of the loss; its parameters are trained too and are not part of the student."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.pairs = tuple(pairs)

    def targets(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the targets from the teacher's outputs, [B, ...] each, one per pair; they may be cached."""
        return list(outputs)

    def forward(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: of the student's layers, one per pair, [B, ...].
            targets: of the teacher's layers.
        """
        raise NotImplementedError
