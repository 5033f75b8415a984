"""What every pruning method is to the driver in ``stage.py``.

A method's module has ``prepare(module, request) -> Method``: it checks the whole request before any work,
and returns what the driver then calls, in this order, ``module`` being the same object throughout:

1. ``own_epochs()``: the driver takes them off the budget of epochs, before the first step.
2. for each step of the schedule: ``step(share)``; batch norms are re-estimated; the network is fine-tuned
   with ``loss(...)`` under the masks that ``step`` returned; ``tuned(share, validation_accuracy)``.
   A method whose ``masking(ramp)`` is not None is pruned within one run of training instead: ``step(1.0)`` on
   the network only to see what it costs untuned, then that run with ``loss(...)``, then ``tuned(1.0, ...)``.
3. ``finish()``, ``details()`` and ``shortfall()``.

A method may train in any of these calls, through ``request.tune`` and nothing else: its phases are resumed
where they were. All else must be a function of the network's weights, the data and the config, because a
run that is started again calls everything again.
"""

from typing import Any, Protocol

from torch import Tensor

from kondense.prune.schedule import Ramp, epochs_by_step
from kondense.training.losses import Loss
from kondense.training.masking import Masking

Masks = dict[str, Tensor]  # by parameter name, in the parameter's shape; True where a weight is kept


class Method(Protocol):
    """Prunes one network, step by step. Subclass it: only ``step`` has no default."""

    def step(self, share: float) -> Masks:
        """Prune a share, (0, 1], of what is asked for, in place; later steps go further.

        Returns:
            The masks of the weights that are zero and must stay so.
        """

    def own_epochs(self) -> int:
        """Return how many epochs of the budget the method itself trains, through ``request.tune``."""
        return 0

    def steps(self, asked: int, epochs: int) -> int:
        """Return how many steps to make in ``epochs`` epochs where the config asks for ``asked`` (0: what suits)."""
        return min(asked or 3, epochs)

    def epochs_by_step(self, epochs: int, steps: int) -> list[int]:
        """Return the epochs of fine-tuning after each step."""
        return epochs_by_step(epochs, steps)

    def sparsity(self, asked: float) -> float:
        """Return what the last step will have removed where the config asks for ``asked``, a fraction."""
        return asked

    def masking(self, ramp: Ramp) -> Masking | None:
        """Return what prunes within one run of training, if the method can; only weights are pruned so."""
        return None

    def loss(self, loss: Loss) -> Loss:
        """Return what the fine-tuning after the latest step minimises, such as ``loss`` with a penalty."""
        return loss

    def tuned(self, share: float, validation_accuracy: float) -> None:
        """Take note of the end of a step's fine-tuning; the network may be changed within its masks."""
        return

    def finish(self) -> Masks | None:
        """Do what remains after the last fine-tuning; return masks that replace the last step's, if any."""
        return None

    def details(self) -> dict[str, Any]:
        """Return JSON values that join the details of the stage's lineage record."""
        return {}

    def shortfall(self) -> str:
        """Say what the request asks for and the network does not meet; empty when it meets everything.

        The stage writes the network all the same, as the closest there is, and then raises ShortfallError.
        """
        return ""
