"""Whether a transformed network computes the same as before: the one guard of every transformation of a graph.

Shapes: images [N, C, H, W]; outputs are any tensors, in tuples, lists and dictionaries too.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # torch flattens nested outputs with it; there is no public one

from kondense.errors import InputError
from kondense.logging import LOG

# Rounding of sums in another order is below this, relative to the largest output; another function is far above:
SUSPICIOUS = 1e-4  # in float32
TOLERANCE = 1e-9  # in float64
COARSE = 1e-3  # in float32, for networks that cannot compute in float64
BATCH_SIZES = (1, 3)  # of random images: what depends on the batch's size shows
REAL_IMAGES = 2
WITHOUT_VALUE = float("inf")

Edit = TypeVar("Edit", bound=Hashable)
Batches = Sequence[Tensor]


def probes(shape: Sequence[int], images_NCHW: Tensor | None = None, *, seed: int = 0) -> list[Tensor]:
    """Return small batches on which networks are compared: random images, and real ones if given.

    Args:
        shape: of one image, (C, H, W).
        images_NCHW: real images, normalised; the first few are used.
        seed: of the random images.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(count, *shape, generator=generator) for count in BATCH_SIZES]
    return [*batches, images_NCHW[:REAL_IMAGES].float()] if images_NCHW is not None and len(images_NCHW) else batches


def check_same(
    what: str, before: nn.Module, after: nn.Module, batches: Batches, *, remedy: str, tolerance: float = TOLERANCE
) -> None:
    """Raise InputError unless ``after`` computes the same as ``before``.

    Args:
        what: the transformation and the layers that it changed, such as ``removing channels of conv1``.
        before: the network before; neither network is changed.
        after: the network after.
        batches: images to compare on (see ``probes``).
        remedy: what the user can do.
        tolerance: largest change of the outputs in float64, relative to the largest output.
    """
    change = difference(before, after, batches, tolerance=tolerance)
    if change:
        raise InputError(f"{what} must not change the network's outputs, but {amount(change)}; {remedy}.")


def amount(change: float) -> str:
    """Return a change from ``difference`` in words."""
    return "the network no longer runs" if change == WITHOUT_VALUE else f"changes them by {change:.2g} of the largest"


def difference(before: nn.Module, after: nn.Module, batches: Batches, *, tolerance: float = TOLERANCE) -> float:
    """Return the largest change of the outputs relative to the largest output; 0.0 if rounding explains it.

    Both networks run in evaluation mode, with equal random numbers. A change that float32's rounding may explain is
    measured again in float64. Batches that ``before`` cannot run are left out.

    Args:
        before: a network; neither is changed.
        after: the transformed network.
        batches: images on which they are compared.
        tolerance: in float64.
    """
    expected = _expected(before, batches)
    change = _difference(expected, after)
    if change <= max(SUSPICIOUS, tolerance) or change == WITHOUT_VALUE:
        return 0.0 if change != WITHOUT_VALUE else change
    exact_before, exact_after = (copy.deepcopy(module).double() for module in (before, after))
    exact = _expected(exact_before, [batch.double() for batch, _ in expected])
    if len(exact) < len(expected):  # a network with a data type of its own
        return change if change > max(COARSE, tolerance) else 0.0
    change = _difference(exact, exact_after)
    return change if change > tolerance else 0.0


def preserving(
    what: str,
    module: nn.Module,
    edits: Iterable[Edit],
    apply: Callable[[nn.Module, Iterable[Edit]], object],
    batches: Batches,
) -> list[Edit]:
    """Return the edits that leave the outputs of ``module``; the others are logged by name.

    Args:
        what: the transformation, such as ``folding``.
        module: the network; not changed.
        edits: as ``apply`` takes them; their text names the layers.
        apply: makes edits in place.
        batches: images to compare on; none: all edits are returned.
    """
    kept = list(edits)
    if not batches or not kept or not _change(module, kept, apply, batches):
        return kept
    for edit in list(kept):
        change = _change(module, [edit], apply, batches)
        if change:
            kept.remove(edit)
            LOG.warning(f"{what} {_named(edit)} is left out: {amount(change)}.")
    if kept and _change(module, kept, apply, batches):
        LOG.warning(f"{what} is left out: {', '.join(map(_named, kept))} change the outputs together.")
        return []
    return kept


def _named(edit: object) -> str:
    return " and ".join(map(str, edit)) if isinstance(edit, tuple) else str(edit)


def _change(
    module: nn.Module, edits: list[Edit], apply: Callable[[nn.Module, Iterable[Edit]], object], batches: Batches
) -> float:
    changed = copy.deepcopy(module).eval()
    apply(changed, edits)
    return difference(module, changed, batches)


def _difference(expected: Sequence[tuple[Tensor, list[Tensor]]], after: nn.Module) -> float:
    changes = [0.0]
    for batch, wanted in expected:
        actual = None
        with contextlib.suppress(Exception):  # whatever the changed network raises, it no longer computes the same
            actual = outputs(after, batch)
        if actual is None or [each.shape for each in actual] != [each.shape for each in wanted]:
            return WITHOUT_VALUE
        changes += [relative_change(one, other) for one, other in zip(wanted, actual, strict=True)]
    return max(changes)


def _expected(module: nn.Module, batches: Batches) -> list[tuple[Tensor, list[Tensor]]]:
    """Return the batches that ``module`` can run, with its outputs."""
    found = []
    for batch in batches:
        try:
            found.append((batch, outputs(module, batch)))
        except Exception as error:  # from the network's own code: it does not take such a batch
            LOG.debug(f"a batch of {len(batch)} images cannot be compared: {type(error).__name__}: {error}")
    return found


def relative_change(expected: Tensor, actual: Tensor) -> float:
    """Return the largest difference of two tensors of one shape relative to the largest value of ``expected``."""
    if not expected.numel():
        return 0.0
    if expected.is_floating_point() and actual.dtype == expected.dtype:
        change = float((actual - expected).abs().max())
        if math.isfinite(change):  # which no infinite and no undefined value gives
            return change / max(float(expected.abs().max()), 1e-30)
    usable = torch.isfinite(expected)
    if not torch.equal(usable, torch.isfinite(actual)):
        return WITHOUT_VALUE
    expected, actual = expected[usable].double(), actual[usable].double()
    if not len(expected):
        return 0.0
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


@torch.no_grad()
def outputs(module: nn.Module, batch_NCHW: Tensor, *, seed: int = 0) -> list[Tensor]:
    """Return all tensors that ``module`` returns for a batch, in evaluation mode and with fixed random numbers."""
    device = next((weight.device for weight in module.parameters()), batch_NCHW.device)
    with evaluating(module), seeded(seed):
        leaves = pytree.tree_leaves(module(batch_NCHW.to(device)))
    return [leaf.detach().cpu() for leaf in leaves if isinstance(leaf, Tensor)]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the processor's random numbers in the block, and put them back; others stay as they are.

    ``torch.manual_seed`` seeds those of GPUs too, for which it keeps the text of its caller's stack: 2 ms.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode within the block; each submodule gets its own mode back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
