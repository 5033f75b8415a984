"""Learning rates as functions of the absolute epoch.

A schedule maps progress, the elapsed fraction of the horizon, [0, 1], to a factor of the peak learning rate. It does
not depend on where a run starts or stops, so a run that is resumed or promoted from 3 to 9 epochs has the learning
rates of an uninterrupted one.
"""

import math
from collections.abc import Callable

from kondense.training.settings import TrainingConfig


def constant(progress: float) -> float:
    """Keep the peak rate."""
    return 1.0


def multistep(progress: float) -> float:
    """Divide by 10 at half and at three quarters (MultiStepLR of the article that Kondense stems from)."""
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))


def cosine(progress: float) -> float:
    """Fall along half a cosine to zero. Source: Loshchilov and Hutter 2017, equation 5, without restarts."""
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def one_cycle(progress: float) -> float:
    """Rise linearly over the first 30 % and fall linearly to zero. Source: Smith 2018, in its linear form."""
    return progress / 0.3 if progress < 0.3 else max(0.0, (1.0 - progress) / 0.7)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "multistep": multistep,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Return the learning rate at an absolute epoch, which may be fractional."""
    warmup = min(1.0, (epoch + 1e-3) / config.warmup_epochs) if config.warmup_epochs else 1.0
    return config.rate * warmup * SCHEDULES[config.schedule](epoch / config.horizon)
