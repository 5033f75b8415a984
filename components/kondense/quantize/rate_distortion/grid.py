"""A weight that is trained on grid points chosen by distance and cost in bits, with zero preferred.

Shapes: weight [O, I, ...] as a matrix of R rows and C columns, a vector one row.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from kondense.codec.tensors import matrix_shape
from kondense.codec.values import likeliest_line
from kondense.quantize.rate_distortion.rate_model import (
    Rates,
    best_integers,
    initial_rates,
    measure_rates,
    nearest_levels,
    worth_keeping,
)
from kondense.training.losses import Loss, Objective

CHOOSE_EVERY = 4  # steps between choices of the zero weights
MEASURE_EVERY = 20  # steps between measurements of the cost of integers
RAMP = 0.6  # fraction of the training after which the grid has its full step size


class RateGrid(nn.Module):
    """A parametrization: the weight on its grid, with straight-through gradients.

    The underlying weight keeps training where it is zero on the grid, so it can become non-zero again.
    """

    kept: Tensor
    place: Tensor
    level: Tensor

    def __init__(self, weight: Tensor, step: float, rate_weight: float) -> None:
        super().__init__()
        self.shape = matrix_shape(tuple(weight.shape))
        self.line = likeliest_line(weight.detach().reshape(self.shape).cpu().numpy()) if weight.ndim > 1 else 0
        self.step, self.rate_weight = step, rate_weight
        self.share = 1.0  # current fraction of the step size
        self.choosing = self.measuring = False
        self.register_buffer("kept", torch.ones(self.shape, dtype=torch.bool))
        for name, tensor in vars(initial_rates(*self.shape)).items():
            self.register_buffer(name, tensor)

    def integers(self, weight: Tensor, rounds: int = 1) -> Tensor:
        """Return the best integers of ``weight``, shaped like it, as floats.

        Args:
            weight: any weight of the grid's shape.
            rounds: number of choices; after each but the last the rates are measured again.
        """
        with torch.no_grad():
            steps_RC = weight.reshape(self.shape) / (self.step * self.share)
            integers_RC = best_integers(steps_RC, self._rates(), self.rate_weight)
            for _ in range(rounds - 1):
                self._remember(measure_rates(integers_RC, self.line))
                integers_RC = best_integers(steps_RC, self._rates(), self.rate_weight)
            return integers_RC.reshape(weight.shape)

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` on the grid; during training the zeros are chosen every few steps."""
        on_grid: Tensor = StraightThrough.apply(weight, self._on_grid(weight.detach()))
        return on_grid

    def _on_grid(self, weight: Tensor) -> Tensor:
        step = self.step * self.share
        if not self.training:
            return self.integers(weight) * step
        steps_RC = weight.reshape(self.shape) / step
        levels_RC = nearest_levels(steps_RC, self._rates(), self.rate_weight)
        if self.choosing:
            self.kept.copy_(worth_keeping(steps_RC, levels_RC, self._rates(), self.rate_weight))
        integers_RC = torch.copysign(levels_RC, steps_RC).mul_(self.kept)
        if self.measuring:
            self._remember(measure_rates(integers_RC, self.line))
        return (integers_RC * step).reshape(weight.shape)

    def _rates(self) -> Rates:
        return Rates(self.place, self.level)

    def _remember(self, rates: Rates) -> None:
        for name, tensor in vars(rates).items():
            getattr(self, name).copy_(tensor)


class StraightThrough(torch.autograd.Function):
    """Replace a value and pass the gradient unchanged. Source: Bengio et al. 2013."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, on_grid: Tensor) -> Tensor:
        """Return a copy of ``on_grid``."""
        return on_grid.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient unchanged."""
        return gradients[0], None


class RateObjective(Objective):
    """A loss that sets the coarseness of the grids in every step."""

    done: Tensor

    def __init__(self, loss: Loss, grids: Iterable[RateGrid], first_share: float) -> None:
        """Start training with ``first_share``, (0, 1], of the grids' step sizes."""
        super().__init__()
        self.loss, self.first_share = loss, first_share
        self.grids = list(grids)  # a list: state_dict ignores it
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def begin(self, index_B: Tensor, progress: float) -> None:
        """Set the grids for a step (see ``Objective.begin``)."""
        if isinstance(self.loss, Objective):
            self.loss.begin(index_B, progress)
        done = int(self.done)
        self.done += 1
        for grid in self.grids:
            grid.share = min(1.0, self.first_share + (1 - self.first_share) * progress / RAMP)
            grid.choosing = done % CHOOSE_EVERY == 0
            grid.measuring = done % MEASURE_EVERY == 0

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        return self.loss(logits_BK, labels_B, images_BCHW)
