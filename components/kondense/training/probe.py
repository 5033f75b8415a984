"""A look into training runs, for those who estimate what they cost.

Shapes: B images in a batch, C channels, H height, W width.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from kondense.training.trainer import Trainer

# Called with the trainer and its last batch (index [B], images uint8 [B, C, H, W], labels [B]) at the end of an epoch's
# steps. It may train further steps, as a preflight does, whose networks are thrown away.
Probe = Callable[["Trainer", tuple[Tensor, Tensor, Tensor]], None]
_probe: contextvars.ContextVar[Probe | None] = contextvars.ContextVar("probe", default=None)


@contextlib.contextmanager
def probed(probe: Probe) -> Iterator[None]:
    """Call ``probe`` once in each epoch of all training runs in the block."""
    token = _probe.set(probe)
    try:
        yield
    finally:
        _probe.reset(token)


def look(trainer: "Trainer", batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """Let the block's probe, if there is one, look at a training run."""
    if probe := _probe.get():
        probe(trainer, batch)
