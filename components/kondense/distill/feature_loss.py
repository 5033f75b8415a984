"""What of a teacher's inner layers a student imitates.

Shapes: B images in a batch.
"""

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from kondense.distill.layer_pairs import Pair


@dataclasses.dataclass(frozen=True)
class Request:
    """What a method is given.

    Attributes:
        teacher: the first one, when there are several.
        student: the network that learns.
        image_shape: shape of one image, (C, H, W).
        hint_layers: the pairs asked for; empty leaves the choice to the method.
        seed: of the weights of adapters.
    """

    teacher: nn.Module
    student: nn.Module
    image_shape: tuple[int, int, int]
    hint_layers: str = ""
    seed: int = 0


class Hint(nn.Module):
    """A method's part of the loss; its parameters, if it has any, learn along and are no part of the student."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.pairs = tuple(pairs)

    def keep(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return what is needed of the teacher's outputs, [B, ...] each, one per pair: it may be cached."""
        return list(outputs)

    def forward(self, outputs: Sequence[Tensor], kept: Sequence[Tensor]) -> Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: of the student's layers, one per pair, [B, ...].
            kept: of the teacher's, as ``keep`` gave it.
        """
        raise NotImplementedError
