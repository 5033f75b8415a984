"""The interface between a pruning method and the loop that iterates it.

``prepare(module, context) -> Pruner`` checks the complete request before any work. The loop then calls the pruner in
this order, ``module`` being the same object throughout:

1. ``own_epochs()``: deducted from the budget of epochs before the first step.
2. For each step of the schedule: ``step(share)``; batch norms are re-estimated; the network is fine-tuned with
   ``loss(...)`` under the masks that ``step`` returned; ``tuned(share, validation_accuracy)``.
   If ``masking(ramp)`` is not None, weights are pruned within one training run instead: ``step(1.0)``, only to measure
   the network untuned, then that run with ``loss(...)``, then ``tuned(1.0, ...)``.
3. ``finish()``, ``details()`` and ``shortfall()``.

Any of these calls may train, but only through ``context.session``, whose phases are resumable. Everything else must be
a function of the network's weights, the data and the config, because a restarted run repeats all calls.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from kondense.errors import InputError
from kondense.prune.context import Context
from kondense.prune.schedule import Ramp, epochs_by_step
from kondense.training.losses import Loss
from kondense.training.masking import Masking

Masks = dict[str, Tensor]  # by parameter name, in the parameter's shape; True where a weight is kept


class Pruner(Protocol):
    """Prunes one network step by step. Subclass it: only ``step`` has no default.

    Attributes:
        keeps_floor: the method itself keeps the accuracy above ``context.floor``.
    """

    keeps_floor: bool = False

    def step(self, share: float) -> Masks:
        """Prune in place until a share, (0, 1], of the request is met; the share grows with every step.

        Returns:
            The masks of the weights that are zero and must stay so.
        """

    def own_epochs(self) -> int:
        """Return how many epochs of the budget the method itself trains."""
        return 0

    def steps(self, requested: int, epochs: int) -> int:
        """Return the number of steps in ``epochs`` epochs; ``requested`` is the config's, 0 for a default."""
        return min(requested or 3, epochs)

    def epochs_by_step(self, epochs: int, steps: int) -> list[int]:
        """Return the epochs of fine-tuning after each step."""
        return epochs_by_step(epochs, steps)

    def sparsity(self, requested: float) -> float:
        """Return the sparsity after the last step; ``requested`` is the config's."""
        return requested

    def masking(self, ramp: Ramp) -> Masking | None:
        """Return the masking that prunes within one training run, or None to prune in steps."""
        return None

    def loss(self, loss: Loss) -> Loss:
        """Return the loss of the fine-tuning after the latest step, such as ``loss`` with a penalty."""
        return loss

    def tuned(self, share: float, validation_accuracy: float) -> None:
        """Called after the fine-tuning of a step; it may change the network within its masks."""
        return

    def finish(self) -> Masks | None:
        """Called after the last fine-tuning; return masks that replace those of the last step, if any."""
        return None

    def notes(self) -> list[str]:
        """Return what the request leaves out, such as layers that cannot be pruned; logged before the work."""
        return []

    def details(self) -> dict[str, Any]:
        """Return JSON values for the details of the stage's lineage record."""
        return {}

    def shortfall(self) -> str:
        """Return why the request was not met, or an empty string."""
        return ""


def check_scores(scores: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return the scores of the names in ``shapes``.

    Raises:
        InputError: a name is missing, or its score has another shape or a NaN.
    """
    for name, shape in shapes.items():
        if name not in scores or tuple(scores[name].shape) != tuple(shape):
            actual = list(scores[name].shape) if name in scores else "nothing"
            raise InputError(f"a score must return a tensor of shape {list(shape)} for {name}, but returned {actual}.")
        if scores[name].isnan().any():
            raise InputError(f"a score must return numbers, but returned NaN for {name}.")
    return {name: scores[name] for name in shapes}


Prepare = Callable[[nn.Module, Context], Pruner]
