"""Unstructured pruning: zeroes single weights, kernels or neurons of convolutions and fully connected layers.

A method is a score per weight; this module turns scores into masks. Biases and norms are not pruned, and every layer
keeps at least its best unit. A unit is pruned as one:

    weights: a weight
    kernels: weight [O, I, kH, kW] -> [kH, kW], one of O * I; of a fully connected layer, a weight
    neurons: weight [O, ...] -> [...], one of O: all weights of an output
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.networks.layers import TYPES, weighted_layers
from kondense.prune.context import Context
from kondense.prune.pruner import Masks, Pruner, check_scores
from kondense.prune.schedule import Ramp
from kondense.training.masking import Masking, zero_masked

# The score of every weight in its weight's shape, by name; the lowest are pruned first.
Score = Callable[[nn.Module, Mapping[str, nn.Parameter]], dict[str, Tensor]]
Sizes = Mapping[str, tuple[int, int]]  # by layer: its weights, and those of one unit


def prepare(module: nn.Module, context: Context, score: Score) -> "MaskPruner":
    """Return the method that zeroes the weights of ``module`` with the lowest scores.

    Args:
        module: pruned in place.
        context: the request.
        score: ranks the weights.

    Raises:
        InputError: every layer is excluded.
    """
    return MaskPruner(module, context, score, maskable_layers(module, context))


def maskable_layers(module: nn.Module, context: Context) -> list[str]:
    """Return the names of the layers that may be pruned (see ``maskable``)."""
    return maskable(module, context.excluded, context.config.granularity)


def maskable(module: nn.Module, excluded: Collection[str], granularity: str) -> list[str]:
    """Return the names of the layers that may be pruned.

    Raises:
        InputError: there is none.
    """
    layers = [name for name in weighted_layers(module) if name not in excluded]
    if granularity == "neurons":  # the outputs of the last layer are the classes
        layers = [name for name in layers if name != list(weighted_layers(module))[-1]]
    if not weighted_layers(module):
        kinds = " and ".join(TYPES)
        raise InputError(
            f"the network has no layer whose weights can be pruned: only those of {kinds} can, not those that its code"
            " computes with itself."
        )
    if not layers:
        raise InputError("exclude must leave a layer to prune, but got all of them.")
    return layers


class MaskPruner(Pruner):
    """Prunes one network, at once or gradually within one training run."""

    def __init__(self, module: nn.Module, context: Context, score: Score, layers: list[str]) -> None:
        self.module, self.context, self.score, self.layers = module, context, score, layers
        self.kept: Masks = context.masks(module)
        check_reachable(layer_sizes(module, layers, context.config.granularity), context)

    def step(self, share: float) -> Masks:
        """Prune a share of the requested sparsity; a pruned weight stays pruned."""
        self.kept = self.masks(self.module, self.kept, share)
        zero_masked(self.module, self.kept)
        return dict(self.kept)

    def masks(self, module: nn.Module, kept: Mapping[str, Tensor], share: float) -> Masks:
        """Return the masks of a share of the requested sparsity; they include what ``kept`` has pruned."""
        config = self.context.config
        weights = self.weights(module)
        scores = check_scores(self.score(module, weights), {name: weight.shape for name, weight in weights.items()})
        for name in kept.keys() & scores.keys():
            scores[name] = scores[name].masked_fill(~kept[name], -math.inf)
        fixed = {f"{name}.weight": share * fraction for name, fraction in self.context.fractions.items()}
        chosen = choose_masks(scores, share * config.sparsity, config.comparison, fixed, config.granularity)
        return dict(kept) | {name: mask & kept.get(name, mask) for name, mask in chosen.items()}

    def weights(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """Return the weights that may be pruned, by name."""
        return {f"{name}.weight": module.get_parameter(f"{name}.weight") for name in self.layers}

    def masking(self, ramp: Ramp) -> Masking | None:
        """Return the masking that prunes within a training run."""
        return GradualMasking(self, ramp)


@dataclasses.dataclass(frozen=True)
class GradualMasking:
    """Prunes every few training steps, as far as the ramp says."""

    pruner: MaskPruner
    ramp: Ramp

    def update(
        self, module: nn.Module, masks: Mapping[str, Tensor], step: int, epoch: float
    ) -> Mapping[str, Tensor] | None:
        """Prune further whenever the ramp has risen (see ``kondense.training.masking``)."""
        share = self.ramp.rise(step, epoch)
        return None if share is None else self.pruner.masks(module, masks, share)


def choose_masks(
    scores: Mapping[str, Tensor], sparsity: float, scope: str, fixed: Mapping[str, float], granularity: str = "weights"
) -> Masks:
    """Return boolean masks, True where a weight is kept.

    Args:
        scores: by weight name; the lowest are pruned, units by their mean.
        sparsity: fraction pruned, [0, 1), of all weights together (``global``, ``lamp``) or of each layer's
            (``layer``).
        scope: ``global``, ``lamp`` (by ``layer_adaptive`` scores) or ``layer``.
        fixed: fractions of single weight tensors, which are excluded from the total of the others.
        granularity: ``weights``, ``kernels`` or ``neurons``.
    """
    units = {name: unit_means(tensor.detach().float(), granularity) for name, tensor in scores.items()}
    weights = {name: tensor.numel() for name, tensor in scores.items()}
    rest = {name: unit for name, unit in units.items() if name not in fixed}
    alone = {name: fixed[name] for name in units if name in fixed}
    if scope == "layer":
        alone |= dict.fromkeys(rest, sparsity)
    masks = {name: _lowest_pruned({name: units[name]}, weights, part)[name] for name, part in alone.items()}
    if scope == "lamp":
        rest = {name: layer_adaptive(unit) for name, unit in rest.items()}
    if scope != "layer":
        masks |= _lowest_pruned(rest, weights, sparsity)
    return {name: mask.expand_as(scores[name]).clone() for name, mask in masks.items()}


def layer_adaptive(scores: Tensor) -> Tensor:
    """Return each score's square over the sum of the squares of those of its layer that are not below it.

    So the best score of a layer is always 1, and no layer is emptied because all its weights are small. Scores of
    pruned weights (-inf) stay lowest.

    Source: Lee et al. 2021 (LAMP), equation 4.
    """
    flat = scores.flatten()
    ascending, order = ascending_order(flat.clamp(min=0.0))
    squares = ascending.square_().double()
    remaining = squares.flip(0).cumsum(0).clamp_(min=torch.finfo(torch.double).tiny).flip(0)
    adapted = torch.empty_like(flat)
    adapted[order] = squares.div_(remaining).to(flat.dtype)
    return adapted.masked_fill(torch.isneginf(flat), -math.inf).view_as(scores)


def ascending_order(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``values.sort(stable=True)`` does for values [n] that are at least 0, in half of its time.

    The bits of such numbers are ordered as they are; with the index behind them, NumPy sorts them by whole registers.
    """
    if values.device.type != "cpu" or values.dtype is not torch.float32:
        ascending, order = values.sort(stable=True)
        return ascending, order
    values = values.abs()  # of -0.0, whose bits are the largest
    keys = values.view(torch.int32).long().bitwise_left_shift_(32).add_(torch.arange(len(values))).numpy()
    keys.sort()
    order = torch.from_numpy(keys & 0xFFFFFFFF)
    return values[order], order


def unit_means(values: Tensor, granularity: str) -> Tensor:
    """Return the mean of every unit's values, in a shape that broadcasts to that of ``values``."""
    within = tuple(range({"weights": values.ndim, "kernels": 2, "neurons": 1}[granularity], values.ndim))
    return values.mean(within, keepdim=True) if within else values


def kept_units(mask: Tensor, granularity: str) -> Tensor:
    """Return a mask's units: True where any of a unit is kept."""
    within = {"weights": mask.ndim, "kernels": 2, "neurons": 1}[granularity]
    return mask.flatten(within).any(-1) if within < mask.ndim else mask


def layer_sizes(module: nn.Module, layers: Iterable[str], granularity: str) -> Sizes:
    """Return the number of each layer's weights and of those of one unit, by layer."""
    sizes = {}
    for name in layers:
        weight = module.get_parameter(f"{name}.weight")
        sizes[name] = weight.numel(), weight.numel() // unit_means(weight, granularity).numel()
    return sizes


def largest_reachable(sizes: Sizes, scope: str) -> float:
    """Return the largest sparsity that leaves a unit in every layer, [0, 1].

    Args:
        sizes: see ``layer_sizes``; of the layers whose fraction is not given.
        scope: ``layer``, or anything else for one sparsity of all weights together.
    """
    if scope == "layer":
        return min((1.0 - unit / weights for weights, unit in sizes.values()), default=1.0)
    return 1.0 - sum(unit for _, unit in sizes.values()) / max(sum(weights for weights, _ in sizes.values()), 1)


def check_reachable(sizes: Sizes, context: Context) -> None:
    """Raise InputError unless the request leaves a unit in every layer.

    Args:
        sizes: see ``layer_sizes``.
        context: the request.
    """
    config, fixed = context.config, context.fractions
    rest = {name: size for name, size in sizes.items() if name not in fixed}
    fractions = {name: fixed[name] for name in sizes if name in fixed}
    if config.comparison == "layer":
        fractions |= dict.fromkeys(rest, config.sparsity)
    for name, fraction in fractions.items():
        weights, unit = sizes[name]
        if round(fraction * weights) > weights - unit:
            raise InputError(
                f"every layer must keep one of its {config.granularity}: {name!r} can lose at most"
                f" {(weights - unit) / weights:.6g} of its {weights} weights, but got {fraction}."
            )
    weights, least = sum(size for size, _ in rest.values()), sum(unit for _, unit in rest.values())
    if config.comparison != "layer" and round(config.sparsity * weights) > weights - least:
        raise InputError(
            f"sparsity must be at most {(weights - least) / weights:.6g}, since each of {', '.join(rest)} keeps one of"
            f" its {config.granularity}, but got {config.sparsity}."
        )


def _lowest_pruned(units: Mapping[str, Tensor], weights: Mapping[str, int], sparsity: float) -> Masks:
    """Return masks of units; each unit of a layer has an equal part of the layer's ``weights``."""
    if not units:
        return {}
    flat = {name: tensor.flatten().clone() for name, tensor in units.items()}
    for tensor in flat.values():
        tensor[tensor.argmax()] = math.inf  # a layer without weights would pass nothing on
    scores = torch.cat(list(flat.values()))
    budget = round(sparsity * sum(weights[name] for name in units))
    per_unit = {name: weights[name] // len(tensor) for name, tensor in flat.items()}
    sizes = None
    if set(per_unit.values()) != {1}:
        sizes = torch.cat([tensor.new_full((len(tensor),), per_unit[name]) for name, tensor in flat.items()]).long()
    lowest = lowest_within(scores, budget, sizes)
    parts = (~lowest).split([len(tensor) for tensor in flat.values()])
    return {name: part.view_as(units[name]) for name, part in zip(flat, parts, strict=True)}


def lowest_within(scores: Tensor, budget: int, sizes: Tensor | None = None) -> Tensor:
    """Mark the lowest ``scores`` [n] whose ``sizes`` [n], 1 unless given, sum to at most ``budget``.

    Of equal scores the first are marked first; infinite ones never.
    """
    protected = torch.isposinf(scores)
    if sizes is None or bool((sizes == 1).all()):  # as sorting would, but several times faster on millions of weights
        count = min(budget, len(scores) - int(protected.sum()))
        if count <= 0:
            return torch.zeros_like(protected)
        threshold = scores.kthvalue(count).values
        below, equal = scores < threshold, scores == threshold
        return below | (equal & (equal.cumsum(0) <= count - int(below.sum())))
    order = scores.argsort(stable=True)
    marked = torch.zeros_like(protected)
    marked[order[sizes[order].cumsum(0) <= budget]] = True
    return marked & ~protected
