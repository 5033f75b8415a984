"""The distribution of modules' inputs and outputs on calibration images."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from kondense.artifacts.quantized import OUTPUT
from kondense.errors import InputError
from kondense.measuring.memory_format import IMAGES, LARGE_IMAGE, fastest_format
from kondense.measuring.processor import CPUINFO, read_cpu

BINS = 4096
FEW = 2  # images that tell whether a network runs in another format or precision
NEAR = 0.03  # largest difference of a bound in another precision, relative to the range
MOST_VALUES = 2**20  # of the images that run at once: larger batches leave the caches and take memory


@dataclasses.dataclass
class Observation:
    """The inputs of one module: their minimum and maximum, and a histogram of BINS equal bins between."""

    low: float
    high: float
    counts: Tensor  # int64 [BINS]; zeros without histogram


def observe(
    module: nn.Module,
    names: Sequence[str],
    batches_NCHW: Sequence[Tensor],
    *,
    histogram: bool = True,
    precision: torch.dtype = torch.float32,
) -> dict[str, Observation]:
    """Return the distribution of the inputs of the modules ``names`` that run, by name.

    A first pass finds minimum and maximum and a second one fills the histogram, so that no values are stored.

    Args:
        module: the network; not changed.
        names: of its modules.
        batches_NCHW: images, normalised.
        histogram: whether to make the second pass.
        precision: arithmetic in which large images run, if it gives the ranges of float32 within NEAR.

    Raises:
        InputError: there is no image, or a value is NaN or infinite (the text names the module).
    """
    if not len(batches_NCHW) or not len(few_NCHW := batches_NCHW[0][:FEW]):
        raise InputError("calibration needs at least 1 image, but got 0.")
    observations: dict[str, Observation] = {}

    def count(name: str, values: Tensor) -> None:
        seen = observations[name]
        if seen.high > seen.low:
            counts = torch.histc(values.float(), bins=BINS, min=seen.low, max=seen.high)
            seen.counts += counts.long()

    with fastest_format(module, few_NCHW) as memory_format:
        running = _in_precision(module, names, few_NCHW.contiguous(memory_format=memory_format), precision)
        dtype = few_NCHW.dtype if running is module else precision
        for record in (_widener(observations), count) if histogram else (_widener(observations),):
            batches = (batch.contiguous(memory_format=memory_format).to(dtype) for batch in batches_NCHW)
            _run(running, names, batches, record)
    return observations


def calibration_precision(name: str) -> torch.dtype:
    """Return the arithmetic of calibration on large images for ``precision``; ``auto``: bfloat16 with AMX.

    There it takes a quarter of the time of ResNet-50 and half of that of MobileNetV2.
    """
    fast = name == "bfloat16" or (name == "auto" and "amx" in read_cpu(CPUINFO)[1])
    return torch.bfloat16 if fast else torch.float32


def _in_precision(module: nn.Module, names: Sequence[str], few_NCHW: Tensor, precision: torch.dtype) -> nn.Module:
    """Return ``module``, or a copy in ``precision`` if a few large images have the same ranges in it."""
    if precision is torch.float32 or few_NCHW.ndim != IMAGES or few_NCHW[0].numel() < LARGE_IMAGE:
        return module
    expected: dict[str, Observation] = {}
    _run(module, names, [few_NCHW], _widener(expected))
    lower, found = copy.deepcopy(module).to(precision), dict[str, Observation]()
    try:
        _run(lower, names, [few_NCHW.to(precision)], _widener(found))
    except (RuntimeError, TypeError, InputError):  # the network's own code, or an overflow
        return module
    same = found.keys() == expected.keys() and all(_near(found[name], expected[name]) for name in found)
    return lower if same else module


def _near(found: Observation, expected: Observation) -> bool:
    room = NEAR * (expected.high - expected.low)
    return abs(found.low - expected.low) <= room and abs(found.high - expected.high) <= room


def _widener(observations: dict[str, Observation]) -> Callable[[str, Tensor], None]:
    """Return a function that widens the range of a module to hold values."""

    def widen(name: str, values: Tensor) -> None:
        low, high = (float(bound) for bound in torch.aminmax(values))
        if not torch.isfinite(torch.tensor([low, high])).all():
            raise InputError(f"calibration values must be finite, but the input of {name!r} holds NaN or infinity.")
        seen = observations.setdefault(name, Observation(low, high, torch.zeros(BINS, dtype=torch.int64)))
        seen.low, seen.high = min(seen.low, low), max(seen.high, high)

    return widen


def _run(
    module: nn.Module, names: Sequence[str], batches_NCHW: Iterable[Tensor], record: Callable[[str, Tensor], None]
) -> None:
    with contextlib.ExitStack() as stack:
        for name in names:
            part = module.get_submodule(name.removesuffix(OUTPUT))
            if name.endswith(OUTPUT):
                handle = part.register_forward_hook(
                    lambda _module, _, output, name=name: record(name, in_memory_order(output.detach()))
                )
            else:
                handle = part.register_forward_pre_hook(
                    lambda _, inputs, name=name: record(name, in_memory_order(inputs[0].detach())) if inputs else None
                )
            stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        for batch_NCHW in batches_NCHW:
            for part_NCHW in parts(batch_NCHW):
                module(part_NCHW)


def in_memory_order(values: Tensor) -> Tensor:
    """Return the same values [N] or [...] as they lie in memory; of channels_last, torch would read a copy."""
    if values.ndim == IMAGES and values.is_contiguous(memory_format=torch.channels_last):
        return values.permute(0, 2, 3, 1).reshape(-1)
    return values


def parts(batch_NCHW: Tensor) -> Iterator[Tensor]:
    """Yield ``batch_NCHW`` in parts of at most MOST_VALUES values, or single images."""
    images = max(1, MOST_VALUES // max(1, batch_NCHW[:1].numel()))
    yield from batch_NCHW.split(images)
