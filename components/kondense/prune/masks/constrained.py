"""Pruning under budgets: training with a growing penalty on the distance to weights that meet every layer's budget.

    min over theta, alpha   L(theta) + R(alpha)   so that   theta = alpha * theta~

theta~ are the weights before pruning, alpha has one factor per unit (a weight, kernel or neuron, see ``masks``), and R
is 0 if the number of non-zero factors of every layer is within its budget, else infinite. The augmented Lagrangian with
the scaled multiplier u and the penalty mu is minimised alternately:

    theta   by the training loop, with mu/2 ||theta - alpha * theta~ + u||^2 in the loss
    alpha   exactly: min 1/2 ||(theta + u) - alpha * theta~||^2 + R(alpha), the projection onto the budget
    u       u + theta - alpha * theta~

mu grows geometrically. Finally theta is set to alpha * theta~, so that budgets are met exactly, and the remaining
epochs fine-tune the remaining weights.

Source: Boyd et al. 2011, sections 3.1.1 and 9.1 (ADMM on a nonconvex set); Carreira-Perpinan and Idelbayev 2018
(the alternation with a growing penalty). Deviation: alpha is updated every ``INTERVAL`` training steps instead of
after theta has converged.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.prune.config import PruneConfig
from kondense.prune.context import Context
from kondense.prune.masks import magnitude
from kondense.prune.masks.masks import MaskPruner, kept_units, lowest_within, maskable_layers, unit_means
from kondense.prune.pruner import Masks, Pruner
from kondense.prune.schedule import Ramp
from kondense.training.losses import Loss, Objective

METHOD = {
    "name": "constrained",
    "kind": "weights",
    "summary": "trains towards a budget per layer with a growing penalty (ADMM)",
    "function": "prepare",
    "fixed_sparsity": True,
}

INTERVAL = 32  # training steps between two projections


def prepare(module: nn.Module, context: Context) -> Pruner:
    """Return the method that trains towards the budgets.

    ``layers`` gives the budgets; those of the other layers are ``sparsity`` of each (scope ``layer``) or the number of
    weights that global magnitude pruning would keep in each (scope ``global``).

    Raises:
        InputError: a budget that leaves a layer no unit, too few epochs, several steps, or every layer excluded.
    """
    config = context.config
    if config.steps > 1:
        raise InputError(f"steps must be 0 or 1 with constrained, which prunes at once, but got {config.steps}.")
    if config.epochs < 2:
        raise InputError(f"epochs must be at least 2 with constrained (penalty, fine-tuning), but got {config.epochs}.")
    return ConstrainedPruner(module, context, magnitude.score, maskable_layers(module, context))


class ConstrainedPruner(MaskPruner):
    """Trains one network towards its budgets."""

    def own_epochs(self) -> int:
        """Return the epochs with the penalty."""
        config = self.context.config
        return min(max(1, round(config.pruning_end * config.epochs)), config.epochs - 1)

    def steps(self, requested: int, epochs: int) -> int:
        """Return 1: the budgets are met at once."""
        return 1

    def masking(self, ramp: Ramp) -> None:
        """Return None: the penalty prunes, not a schedule."""

    def step(self, share: float) -> Masks:
        """Train with the penalty, then project; ``share`` is 1."""
        config, session = self.context.config, self.context.session
        masks, weights = self.masks(self.module, self.kept, share), self.weights(self.module)
        budgets = {name: int(kept_units(masks[name], config.granularity).sum()) for name in weights}
        lagrangian = Lagrangian(session.loss, weights, budgets, config)
        session.train(self.module, "constrained", epochs=self.own_epochs(), loss=lagrangian, masks=self.kept)
        lagrangian.to("cpu").update(config.penalty * config.penalty_growth)
        for name, weight in weights.items():
            target = lagrangian.target(name)
            with torch.no_grad():
                weight.copy_(target)
            self.kept[name] = target != 0
        return dict(self.kept)


class Lagrangian(Objective):
    """A loss plus the penalty on the distance of every weight to its projection.

    Args:
        loss: L.
        weights: theta, by name; their current values are theta~.
        budgets: number of units to keep, by weight name.
        config: gives ``granularity``, and mu by ``penalty`` and ``penalty_growth``.
    """

    def __init__(
        self, loss: Loss, weights: Mapping[str, nn.Parameter], budgets: Mapping[str, int], config: PruneConfig
    ) -> None:
        super().__init__()
        self.loss, self.budgets, self.config = loss, budgets, config
        self.weights = dict(weights)  # a plain dict: they are the network's parameters, not this objective's
        for name, weight in weights.items():
            for part in ("original", "target", "multiplier"):
                start = torch.zeros_like(weight) if part == "multiplier" else weight.detach().clone()
                self.register_buffer(_key(part, name), start)
        self.register_buffer("mu", torch.tensor(config.penalty))
        self.register_buffer("begun", torch.tensor(0))

    def begin(self, index_B: Tensor, progress: float) -> None:
        """Update alpha, u and mu every ``INTERVAL`` steps."""
        if isinstance(self.loss, Objective):
            self.loss.begin(index_B, progress)
        if int(self.get_buffer("begun")) % INTERVAL == 0:
            self.update(self.config.penalty * self.config.penalty_growth**progress)
        self.get_buffer("begun").add_(1)

    @torch.no_grad()
    def update(self, mu: float) -> None:
        """Project, update the multipliers and set the penalty, which rescales them."""
        for name, weight in self.weights.items():
            target, multiplier = self.target(name), self.get_buffer(_key("multiplier", name))
            shifted = weight.to(multiplier.device) + multiplier
            original = self.get_buffer(_key("original", name))
            target.copy_(project(shifted, original, self.budgets[name], self.config.granularity))
            multiplier.copy_((shifted - target) * (float(self.get_buffer("mu")) / mu))
        self.get_buffer("mu").fill_(mu)

    def target(self, name: str) -> Tensor:
        """Return alpha * theta~ of a weight."""
        return self.get_buffer(_key("target", name))

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        """Return the augmented Lagrangian of a batch, a scalar."""
        total = self.loss(logits_BK, labels_B, images_BCHW)
        for name, weight in self.weights.items():
            gap = weight - self.target(name) + self.get_buffer(_key("multiplier", name))
            total = total + 0.5 * self.get_buffer("mu") * gap.square().sum()
        return total


def project(weight: Tensor, original: Tensor, budget: int, granularity: str) -> Tensor:
    """Return alpha * ``original`` for the alpha that minimises 1/2 ||weight - alpha * original||^2 within a budget.

    The best factor of a unit is <weight, original> / ||original||^2 and lowers the objective by half of
    <weight, original>^2 / ||original||^2, so the ``budget`` units that lower it most get it, the others 0.

    Args:
        weight: [O, I] or [O, I, kH, kW].
        original: same shape.
        budget: the most factors that may differ from 0.
        granularity: the unit: ``weights``, ``kernels`` or ``neurons``.
    """
    products = unit_means(weight * original, granularity)
    squares = unit_means(original.square(), granularity)
    factors = torch.where(squares > 0, products / squares, 0.0)
    lowest = lowest_within((products * factors).flatten(), factors.numel() - budget).view_as(factors)
    return torch.where(lowest, 0.0, factors) * original


def _key(part: str, name: str) -> str:
    return f"{part}/{name.replace('.', '/')}"  # a buffer's name has no dots
