"""The sparsity of each step, and the epochs of fine-tuning after it. Stdlib only."""

import dataclasses
import math
from collections.abc import Callable

from kondense.errors import InputError

RAMP_STEPS = 100  # default number of steps of a ramp; every step sorts all weights


def linear(progress: float) -> float:
    """Remove the same share in every step."""
    return progress


def cubic(progress: float) -> float:
    """Remove more in early steps, while there is more redundancy. Source: Zhu and Gupta 2017, equation 1, from 0."""
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
    """Return the epochs of fine-tuning after each step: one, and the rest after the last.

    The first steps do not depend on the budget, so a run with more epochs continues one with fewer.

    Raises:
        InputError: fewer epochs than steps.
    """
    if epochs < steps:
        raise InputError(f"epochs must be at least steps ({steps}), but got {epochs}.")
    return [1] * (steps - 1) + [epochs - steps + 1]


@dataclasses.dataclass(frozen=True)
class Ramp:
    """The share of the final sparsity during a training run with gradual pruning.

    Attributes:
        schedule: a name of ``SCHEDULES``.
        epochs: from the beginning of the run until the share is 1.
        steps: number of equal steps of the progress; 0: ``RAMP_STEPS``.
    """

    schedule: str
    epochs: float
    steps: int = 0

    def share(self, epoch: float) -> float:
        """Return the share ``epoch`` epochs after the beginning."""
        return SCHEDULES[self.schedule](min(1.0, epoch / self.epochs))

    def rise(self, step: int, epoch: float) -> float | None:
        """Return the new share if training step ``step`` (from 1), which ends at ``epoch``, raises it, else None."""
        before, now = (self._progress(epoch * at / step) for at in (step - 1, step))
        return SCHEDULES[self.schedule](now) if now > before else None

    def _progress(self, epoch: float) -> float:
        steps = self.steps or RAMP_STEPS
        return min(1.0, math.floor(steps * epoch / self.epochs) / steps)
