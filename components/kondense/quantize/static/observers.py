"""The distribution of a module's inputs on calibration images."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.measuring.memory_format import IMAGES, fastest_format

BINS = 4096
MOST_VALUES = 2**20  # of the images that run at once: larger batches leave the caches and take memory


@dataclasses.dataclass
class Observation:
    """The inputs of one module: their minimum and maximum, and a histogram of BINS equal bins between."""

    low: float
    high: float
    counts: Tensor  # int64 [BINS]; zeros without histogram


def observe(
    module: nn.Module, names: Sequence[str], batches_NCHW: Sequence[Tensor], *, histogram: bool = True
) -> dict[str, Observation]:
    """Return the distribution of the inputs of the modules ``names`` that run, by name.

    A first pass finds minimum and maximum and a second one fills the histogram, so that no values are stored.

    Args:
        module: the network; not changed.
        names: of its modules.
        batches_NCHW: images, normalised.
        histogram: whether to make the second pass.

    Raises:
        InputError: there is no image, or a value is NaN or infinite (the text names the module).
    """
    if not len(batches_NCHW) or not len(batches_NCHW[0]):
        raise InputError("calibration needs at least 1 image, but got 0.")
    observations: dict[str, Observation] = {}

    def widen(name: str, values: Tensor) -> None:
        low, high = (float(bound) for bound in torch.aminmax(values))
        if not torch.isfinite(torch.tensor([low, high])).all():
            raise InputError(f"calibration values must be finite, but the input of {name!r} holds NaN or infinity.")
        seen = observations.setdefault(name, Observation(low, high, torch.zeros(BINS, dtype=torch.int64)))
        seen.low, seen.high = min(seen.low, low), max(seen.high, high)

    def count(name: str, values: Tensor) -> None:
        seen = observations[name]
        if seen.high > seen.low:
            counts = torch.histc(values.float(), bins=BINS, min=seen.low, max=seen.high)
            seen.counts += counts.long()

    for record in (widen, count) if histogram else (widen,):
        _run(module, names, batches_NCHW, record)
    return observations


def _run(
    module: nn.Module, names: Sequence[str], batches_NCHW: Sequence[Tensor], record: Callable[[str, Tensor], None]
) -> None:
    with contextlib.ExitStack() as stack:
        memory_format = stack.enter_context(fastest_format(module, batches_NCHW[0]))
        for name in names:
            handle = module.get_submodule(name).register_forward_pre_hook(
                lambda _module, inputs, name=name: record(name, in_memory_order(inputs[0].detach())) if inputs else None
            )
            stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        for batch_NCHW in batches_NCHW:
            for part_NCHW in parts(batch_NCHW):
                module(part_NCHW.contiguous(memory_format=memory_format))


def in_memory_order(values: Tensor) -> Tensor:
    """Return the same values [N] or [...] as they lie in memory; of channels_last, torch would read a copy."""
    if values.ndim == IMAGES and values.is_contiguous(memory_format=torch.channels_last):
        return values.permute(0, 2, 3, 1).reshape(-1)
    return values


def parts(batch_NCHW: Tensor) -> Iterator[Tensor]:
    """Yield ``batch_NCHW`` in parts of at most MOST_VALUES values, or single images."""
    images = max(1, MOST_VALUES // max(1, batch_NCHW[:1].numel()))
    yield from batch_NCHW.split(images)
