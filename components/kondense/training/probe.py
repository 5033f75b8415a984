"""A look into training runs, for those who estimate what they cost.

Shapes: B images in a batch, C channels, H height, W width.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from kondense.data.dataset import Dataset


class Training(Protocol):
    """A training run in progress, as a probe sees it (see ``trainer.Trainer``)."""

    module: nn.Module
    dataset: Dataset
    device: torch.device
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    masks: dict[str, Tensor]

    def train_step(self, index_B: Tensor, images_u8: Tensor, labels_B: Tensor) -> Tensor:
        """Train one step and return its loss, a scalar."""


# Called with the training run and its last batch (index [B], images uint8 [B, C, H, W], labels [B]) at the end of an
# epoch's steps. It may train further steps, as a preflight does, whose networks are thrown away.
Probe = Callable[[Training, tuple[Tensor, Tensor, Tensor]], None]
_probe: contextvars.ContextVar[Probe | None] = contextvars.ContextVar("probe", default=None)


@contextlib.contextmanager
def probed(probe: Probe) -> Iterator[None]:
    """Call ``probe`` once in each epoch of all training runs in the block."""
    token = _probe.set(probe)
    try:
        yield
    finally:
        _probe.reset(token)


def look(training: Training, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """Let the block's probe, if there is one, look at a training run."""
    if probe := _probe.get():
        probe(training, batch)
