"""Mixed precision: to each layer its own number of bits, chosen by what it costs and what it saves."""

from torch import nn

from kondense.artifacts.fold import fold_batch_norms
from kondense.artifacts.model import Model
from kondense.quantize import qat, weight_only
from kondense.quantize.bit_allocation import allocate, check_budget
from kondense.quantize.layers import quantizable_layers
from kondense.quantize.request import Request
from kondense.quantize.sensitivity import ALL_BITS, divergence_by_bits
from kondense.quantize.static import static

SCALE_BYTES = {"float": 2, "integer": 4}  # of one scale; the grids of weights alone have scales that bfloat16 holds


def apply(model: Model, request: Request) -> Model:
    """Quantize ``model`` as the request's config says, with bits that fit the budget and change predictions least.

    What a layer costs is measured with that layer alone quantized, on the calibration images; the costs are
    taken to add up. The lineage record's ``bits`` tells the choice and ``budget_bytes`` the budget.

    Raises:
        ValueError: the budget is too small for 2 bits everywhere.
    """
    config = request.config
    integer = config.arithmetic == "integer"
    module = fold_batch_norms(model.module) if integer else model.module
    sizes = {name: layer_bytes(module, name, request) for name in quantizable_layers(module)}
    budget = config.budget_bytes or sum(row[ALL_BITS.index(config.bits)] for row in sizes.values())
    check_budget(list(sizes.values()), budget)
    costs = divergence_by_bits(module, request.calibration_batches(), config.granularity)
    chosen = allocate([costs[name] for name in sizes], list(sizes.values()), budget)
    bits = {name: ALL_BITS[index] for name, index in zip(sizes, chosen, strict=True)}
    taken = sum(row[index] for row, index in zip(sizes.values(), chosen, strict=True))
    request.details.update({"bits": bits, "budget_bytes": budget, "weight_bytes": taken})
    if integer:
        calibrated = static.quantize_as(model, request, bits)
        return qat.train(model, calibrated, request) if config.fine_tune else calibrated
    quantized = weight_only.quantize(model, bits=bits, granularity=config.granularity)
    return weight_only.fine_tune(model, quantized, request) if config.fine_tune else quantized


def layer_bytes(module: nn.Module, name: str, request: Request) -> list[int]:
    """Return the bytes that the weight of a layer and its scales take, by number of bits, 2 to 8."""
    config = request.config
    weight = module.get_parameter(f"{name}.weight")
    scales = len(weight) if config.granularity == "channel" else 1
    return [-(-weight.numel() * bits // 8) + scales * SCALE_BYTES[config.arithmetic] for bits in ALL_BITS]
