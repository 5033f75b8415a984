"""How far each step prunes, and how many epochs of fine-tuning follow it. Stdlib only."""

import dataclasses
import math
from collections.abc import Callable

from kondense.errors import InputError

RAMP_STEPS = 100  # of a ramp without a number of its own; every one sorts all weights


def linear(progress: float) -> float:
    """Remove the same share in every step."""
    return progress


def cubic(progress: float) -> float:
    """Remove much at first, while there is much to spare. Source: Zhu and Gupta 2017, equation 1, from 0."""
    return 1.0 - (1.0 - progress) ** 3


def one_shot(progress: float) -> float:
    """Remove everything in the first step."""
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"one_shot": one_shot, "linear": linear, "cubic": cubic}


def shares(schedule: str, steps: int) -> list[float]:
    """Return the share of the final sparsity that each step reaches; the last is exactly 1."""
    if schedule == "one_shot":
        return [1.0]
    return [SCHEDULES[schedule](step / steps) for step in range(1, steps)] + [1.0]


def epochs_by_step(epochs: int, steps: int) -> list[int]:
    """Return the epochs of fine-tuning after each step: one, and all that are left after the last.

    The first steps are the same whatever the budget, so a run with more epochs continues one with fewer.

    Raises:
        ValueError: fewer epochs than steps.
    """
    if epochs < steps:
        raise InputError(f"epochs must be at least steps ({steps}), but got {epochs}.")
    return [1] * (steps - 1) + [epochs - steps + 1]


@dataclasses.dataclass(frozen=True)
class Ramp:
    """The share of the final sparsity over a run of training that is pruned as it goes on.

    Attributes:
        schedule: a name of ``SCHEDULES``.
        epochs: from the beginning of the run until the share is 1.
        steps: equal steps of the progress; 0 makes ``RAMP_STEPS``.
    """

    schedule: str
    epochs: float
    steps: int = 0

    def share(self, epoch: float) -> float:
        """Return the share that is pruned ``epoch`` epochs after the beginning."""
        return SCHEDULES[self.schedule](min(1.0, epoch / self.epochs))

    def rise(self, step: int, epoch: float) -> float | None:
        """Return the share that training step number ``step`` (from 1), which ends at ``epoch``, brings, if it does."""
        before, now = (self._progress(epoch * at / step) for at in (step - 1, step))
        return SCHEDULES[self.schedule](now) if now > before else None

    def _progress(self, epoch: float) -> float:
        steps = self.steps or RAMP_STEPS
        return min(1.0, math.floor(steps * epoch / self.epochs) / steps)
