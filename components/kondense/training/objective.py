"""A loss that is more than a function: it knows where in the run it stands, and may have weights of its own.

Shapes: B images in a batch, C channels, H height, W width, K classes.
"""

from torch import Tensor, nn


class Objective(nn.Module):
    """A loss that the training loop tells of every step.

    Its parameters are trained along with the network's, in the same optimizer, and they, its buffers and their momenta
    are part of the checkpoints. They are no part of the network: it is saved without them.
    """

    def begin(self, index_B: Tensor, progress: float) -> None:
        """Prepare for one step.

        Args:
            index_B: which images of the training split the batch is made of, on the CPU.
            progress: fraction of the schedule's horizon that is behind, [0, 1).
        """

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        raise NotImplementedError
