"""Mixed precision: a number of bits for each layer, chosen by size and effect on the predictions.

Shapes: L layers with C choices each; P Pareto-optimal states.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import Model, model_probes
from kondense.errors import InputError
from kondense.quantize import qat, weight_only
from kondense.quantize.context import Context
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.sensitivity import ALL_BITS, divergence_by_bits
from kondense.quantize.static import static

METHOD = {
    "name": "mixed",
    "kind": "weights",
    "summary": "chooses the bits of each layer",
    "function": "apply",
    "calibrates": True,
    "fine_tune": True,
    "equalize": "integer",
    "bias_correction": "integer",
    "rounding": "integer",
}
SCALE_BYTES = {"float": 2, "integer": 4}  # of one scale; those of weights alone are bfloat16
MOST_STATES = 200_000  # kept per layer; beyond, the best of that many sizes


def apply(model: Model, context: Context) -> Model:
    """Quantize ``model`` with the bits by layer that change predictions least within the budget.

    The cost of a layer is the divergence on calibration images with that layer alone quantized; the costs are assumed
    to add up. The detail ``bits`` has the choice and ``budget_bytes`` the budget.

    Raises:
        InputError: the budget is below 2 bits in every layer.
    """
    config = context.config
    integer = config.arithmetic == "integer"
    module = fold_batch_norms(model.module, model_probes(model)) if integer else model.module
    sizes = {name: layer_bytes(module, name, context) for name in quantizable_layers(module)}
    budget = config.budget_bytes or sum(row[ALL_BITS.index(config.bits)] for row in sizes.values())
    check_budget(list(sizes.values()), budget)
    costs = divergence_by_bits(module, context.calibration_batches(), config.granularity)
    chosen = allocate([costs[name] for name in sizes], list(sizes.values()), budget)
    bits = {name: ALL_BITS[index] for name, index in zip(sizes, chosen, strict=True)}
    weight_bytes = sum(row[index] for row, index in zip(sizes.values(), chosen, strict=True))
    context.details.update({"bits": bits, "budget_bytes": budget, "weight_bytes": weight_bytes})
    context.summary = (
        f"quantize weights to {min(bits.values())} to {max(bits.values())} bits by layer, {config.arithmetic}"
        f" arithmetic{weight_only.fine_tuning(config)}"
    )
    if integer:
        calibrated = static.quantize_as(model, context, bits)
        return qat.train(model, calibrated, context) if config.fine_tune else calibrated
    quantized = weight_only.quantize(model, bits=bits, granularity=config.granularity)
    return weight_only.fine_tune(model, quantized, context) if config.fine_tune else quantized


def layer_bytes(module: nn.Module, name: str, context: Context) -> list[int]:
    """Return the bytes of a layer's weight and scales, by number of bits, 2 to 8."""
    config = context.config
    weight = module.get_parameter(f"{name}.weight")
    scales = len(weight) if config.granularity == "channel" else 1
    return [-(-weight.numel() * bits // 8) + scales * SCALE_BYTES[config.arithmetic] for bits in ALL_BITS]


def allocate(
    costs: Sequence[Sequence[float]],
    sizes: Sequence[Sequence[int]],
    budget_bytes: int,
    *,
    most_states: int = MOST_STATES,
) -> list[int]:
    """Return the choice of every layer with the least total cost whose sizes fit the budget.

    Dynamic programming over the layers keeps the states that cost less than every smaller one, so the result is the
    optimum unless there are more than ``most_states`` of them.

    Args:
        costs: [L][C], of each choice; they add up.
        sizes: [L][C], bytes.
        budget_bytes: of all layers together.
        most_states: kept per layer.

    Raises:
        InputError: the smallest choices exceed the budget.
    """
    check_budget(sizes, budget_bytes)
    total_P, cost_P = np.zeros(1, dtype=np.int64), np.zeros(1)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # predecessor and choice of each state
    # Least bytes of the layers that follow each.
    least_rest = np.cumsum([min(row) for row in reversed(sizes)])[::-1].tolist()[1:] + [0]
    for layer_costs, layer_sizes, needed in zip(costs, sizes, least_rest, strict=True):
        totals = (total_P[:, None] + np.asarray(layer_sizes, dtype=np.int64)).ravel()
        sums = (cost_P[:, None] + np.asarray(layer_costs, dtype=np.float64)).ravel()
        kept = _front(totals, sums, budget_bytes - needed, most_states)
        steps.append((kept // len(layer_sizes), kept % len(layer_sizes)))
        total_P, cost_P = totals[kept], sums[kept]
    state = len(cost_P) - 1  # the front is sorted by falling cost
    chosen = []
    for predecessor, choice in reversed(steps):
        chosen.append(int(choice[state]))
        state = int(predecessor[state])
    return chosen[::-1]


def check_budget(sizes: Sequence[Sequence[int]], budget_bytes: int) -> None:
    """Raise InputError unless the smallest choices fit the budget."""
    smallest = sum(min(row) for row in sizes)
    if smallest > budget_bytes:
        raise InputError(
            f"budget_bytes must be at least {smallest}, the size at the fewest bits, but got {budget_bytes}."
        )


def _front(
    totals: NDArray[np.int64], sums: NDArray[np.float64], budget_bytes: int, most_states: int
) -> NDArray[np.int64]:
    """Return the indices of the states within the budget that cost less than every smaller one, by rising size."""
    order = np.lexsort((sums, totals))
    order = order[totals[order] <= budget_bytes]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(sums[order])[:-1]))
    front = order[sums[order] < best_before]
    if len(front) > most_states:
        cell = (totals[front] - totals[front[0]]) * most_states // (totals[front[-1]] - totals[front[0]] + 1)
        front = front[np.flatnonzero(np.diff(cell, append=cell[-1] + 1))]  # the cheapest of each cell
    return front
