"""What values pass a module's input on calibration images."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from kondense.errors import InputError

BINS = 4096


@dataclasses.dataclass
class Observation:
    """The values seen at one point: their extremes, and how many fell in each of BINS equal bins between."""

    low: float
    high: float
    counts: Tensor  # int64 [BINS]


def observe(module: nn.Module, points: Sequence[str], batches_NCHW: Iterable[Tensor]) -> dict[str, Observation]:
    """Run ``batches_NCHW`` through ``module`` twice and return what entered the modules named ``points``.

    The first pass finds the extremes, the second fills the bins, so that no value has to be kept.

    Raises:
        ValueError: there is no image, or a value is NaN or infinite (the point is named).
    """
    batches = list(batches_NCHW)
    if not sum(len(batch) for batch in batches):
        raise InputError("calibration needs at least 1 image, but got 0.")
    observations: dict[str, Observation] = {}

    def widen(name: str, values: Tensor) -> None:
        low, high = (float(bound) for bound in torch.aminmax(values))
        if not torch.isfinite(torch.tensor([low, high])).all():
            raise InputError(f"calibration values must be finite, but the input of {name!r} holds NaN or infinity.")
        known = observations.setdefault(name, Observation(low, high, torch.zeros(BINS, dtype=torch.int64)))
        known.low, known.high = min(known.low, low), max(known.high, high)

    def count(name: str, values: Tensor) -> None:
        known = observations[name]
        if known.high > known.low:
            counts = torch.histc(values.float(), bins=BINS, min=known.low, max=known.high)
            known.counts += counts.long()

    for record in (widen, count):
        _run(module, points, batches, record)
    missing = [name for name in points if name not in observations]
    if missing:
        raise InputError(f"module {missing[0]!r} is never run, so its input cannot be calibrated.")
    return observations


def _run(
    module: nn.Module, points: Sequence[str], batches: Sequence[Tensor], record: Callable[[str, Tensor], None]
) -> None:
    handles = [
        module.get_submodule(name).register_forward_pre_hook(
            lambda _module, inputs, name=name: record(name, inputs[0].detach())
        )
        for name in points
    ]
    try:
        with torch.no_grad():
            for batch_NCHW in batches:
                module(batch_NCHW)
    finally:
        for handle in handles:
            handle.remove()
