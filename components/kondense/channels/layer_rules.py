"""What layers do with labels (see ``labels``): functions of torch that layers call with weights of their own.

Shapes: N images, C channels; a layer of O outputs and I inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.channels.combining import Labels
from kondense.channels.heads import attention
from kondense.channels.labels import Labelled, Trace, collapse, meeting, spread, unwrapped, varies
from kondense.channels.own import axes_at, axis_at, meet_axis, own_channels
from kondense.channels.statistics import without_gone
from kondense.networks.layers import CONVOLUTIONS, TRANSPOSED


def convolution(  # noqa: PLR0917  # as torch's
    images: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Run a convolution: the outputs are new channels, or those of the input if it is depthwise."""
    return _convolve(images, weight, bias, (stride, padding, dilation, groups), groups)


def transposed(  # noqa: PLR0917  # as torch's
    images: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Run a transposed convolution, whose weight is [I, O / G, ...]: the outputs are as those of ``convolution``."""
    return _convolve(images, weight, bias, (stride, padding, output_padding, groups, dilation), groups, turned=True)


def _convolve(
    images: Any, weight: Any, bias: Any, settings: tuple[Any, ...], groups: int, *, turned: bool = False
) -> Any:
    if not isinstance(images, Labelled) or images.ndim != weight.ndim:
        return NotImplemented
    run, trace, labels = (TURNED if turned else CONVOLVE)[weight.ndim], images.record, images.labels
    if labels is not None and (isinstance(weight, Labelled) or not trace.owners.get(id(weight))):
        return _with_own(images, run, weight, bias, settings, groups=groups, turned=turned)
    value = run(_read(trace, images, 1), unwrapped(weight), unwrapped(bias), *settings)
    names = _callees(trace, weight, TRANSPOSED if turned else FORWARD, groups)
    count = groups * weight.shape[1] if turned else len(weight)
    along = meeting(trace, labels, 1) if labels is not None and names else None
    if labels is not None and not names:
        trace.pin(labels, "it is read by a convolution whose weights are computed")
    if groups > 1 and groups == images.shape[1]:
        outputs = along.repeat_interleave(count // groups) if along is not None else None
        if outputs is not None and not bool(outputs.all()):
            trace.pin(outputs, "some inputs of its depthwise convolution must stay")
    else:
        outputs = produce(trace, names, count)
        _meet(trace, names, output=False, labels=along)
    _meet(trace, names, output=True, labels=outputs)
    return type(images)(value, spread(outputs, 1, value.shape) if outputs is not None else None, trace)


def _with_own(  # noqa: PLR0917  # as torch's
    images: Labelled,
    run: Callable[..., Tensor],
    weight: Any,
    bias: Any,
    settings: tuple[Any, ...],
    *,
    groups: int,
    turned: bool,
) -> Any:
    """Run a convolution whose weight the network holds itself or computes; its outputs are no channels.

    If it is depthwise, the channels pass.
    """
    trace, labels = images.record, images.labels
    assert labels is not None
    depthwise = groups > 1 and groups == images.shape[1]
    multiplier = weight.shape[1] if turned else len(weight) // groups
    along = meeting(trace, labels, 1)
    held = [(tensor, axis_at(tensor, 0)) for tensor in (weight, bias) if tensor is not None and len(tensor) > 1]
    axes = [found for _, found in held] if depthwise else [axis_at(weight, 0 if turned else 1)]
    computed = [tensor for tensor in (weight, bias) if isinstance(tensor, Labelled) and tensor.labels is not None]
    fixed = any(found is None for found in axes) and isinstance(weight, Labelled)
    grouped = groups > 1 and not depthwise  # each group of filters holds weights of other inputs
    if computed or fixed or grouped:
        trace.pin(labels, "it is read by a convolution whose weights are computed")
    outputs = along.repeat_interleave(multiplier) if depthwise else None
    for found in () if fixed or grouped else axes:
        if found is not None:
            meet_axis(trace, found, along if outputs is None or len(found[1]) == len(along) else outputs)
    value = run(without_gone(trace, images, 1).value, unwrapped(weight), unwrapped(bias), *settings)
    return type(images)(value, spread(outputs, 1, value.shape) if outputs is not None else None, trace)


def linear(inputs: Any, weight: Any, bias: Any = None) -> Any:
    """Run ``torch.nn.functional.linear``: the outputs are new channels, unless it works along another axis."""
    if not isinstance(inputs, Labelled):
        return NotImplemented
    trace, labels = inputs.record, inputs.labels
    own = axis_at(weight, 1)
    if labels is not None and own is not None and varies(labels, -1):
        meet_axis(trace, own, meeting(trace, labels, -1))
        return type(inputs)(
            F.linear(without_gone(trace, inputs, -1).value, unwrapped(weight), unwrapped(bias)), None, trace
        )
    if isinstance(weight, Labelled):
        return NotImplemented
    value = F.linear(_read(trace, inputs, -1), weight, unwrapped(bias))
    names = _callees(trace, weight, (nn.Linear,))
    if labels is None and names and (held := axis_at(inputs, -1)) is not None:
        labels = own_channels(trace, held, inputs.shape)
    if labels is not None and not varies(labels, -1) and bool(collapse(labels).any()):
        for name in names:
            trace.misused.setdefault(name, "it works along another axis than that of the channels")
        return type(inputs)(value, labels.amax(-1, keepdim=True).expand(value.shape), trace)
    along = meeting(trace, labels, -1) if labels is not None and names else None
    if labels is not None and not names:
        trace.pin(labels, "it is read by a linear layer whose weights are computed")
    outputs = produce(trace, names, len(weight))
    _meet(trace, names, output=False, labels=along)
    _meet(trace, names, output=True, labels=outputs)
    if outputs is not None:
        for each in axes_at(bias, -1):
            meet_axis(trace, each, outputs)
    return type(inputs)(value, spread(outputs, -1, value.shape) if outputs is not None else None, trace)


def _read(trace: Trace, inputs: Labelled, axis: int) -> Tensor:
    """Return what a layer reads, whose weights may be used without calling it: zeros for channels that are lacking."""
    return unwrapped(without_gone(trace, inputs, axis)) if trace.gone else inputs.value


def norm(  # noqa: PLR0917  # as torch's
    inputs: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, *rest: Any, **settings: Any
) -> Any:
    """Run ``torch.nn.functional.batch_norm``: the channels pass."""
    if not isinstance(inputs, Labelled):
        return NotImplemented
    held = (running_mean, running_var, weight, bias)
    if not any(isinstance(tensor, Labelled) for tensor in held):
        value = F.batch_norm(inputs.value, running_mean, running_var, weight, bias, *rest, **settings)
        return _per_channel(inputs, value, running_mean, weight)
    return _own_norm(inputs, held, lambda values: F.batch_norm(inputs.value, *values, *rest, **settings))


def _own_norm(inputs: Labelled, held: Sequence[Any], run: Callable[[Sequence[Any]], Tensor]) -> Any:
    """Run a norm of each channel whose tensors [C] the network holds itself: they go with the channels."""
    trace, labels = inputs.record, inputs.labels
    found = [axis_at(tensor, 0) for tensor in held if tensor is not None]
    if labels is not None and varies(labels, 1):
        if None in found:
            return NotImplemented  # one is computed
        along = meeting(trace, labels, 1)
        for each in found:
            if each is not None:
                meet_axis(trace, each, along)
    # In training a norm writes to its running statistics, which stay those of the network
    values = [unwrapped(tensor).clone() if isinstance(tensor, Labelled) else tensor for tensor in held]
    return type(inputs)(run(values), labels, trace)


def instance_norm(  # noqa: PLR0917  # as torch's
    inputs: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    *rest: Any,
    **settings: Any,
) -> Any:
    """Run ``torch.nn.functional.instance_norm``: the channels pass."""
    if not isinstance(inputs, Labelled):
        return NotImplemented
    held = (running_mean, running_var, weight, bias)
    if not any(isinstance(tensor, Labelled) for tensor in held):
        value = F.instance_norm(inputs.value, running_mean, running_var, weight, bias, *rest, **settings)
        return _per_channel(inputs, value, running_mean, weight)
    return _own_norm(inputs, held, lambda values: F.instance_norm(inputs.value, *values, *rest, **settings))


def prelu(inputs: Any, weight: Any) -> Any:
    """Run ``torch.prelu`` with a slope for each channel: the channels pass."""
    if not isinstance(inputs, Labelled) or isinstance(weight, Labelled) or len(weight) == 1:
        return NotImplemented
    return _per_channel(inputs, torch.prelu(inputs.value, weight), weight)


def _per_channel(inputs: Labelled, value: Tensor, *held: Tensor | None) -> Labelled:
    """Return the labelled result of a layer whose tensors ``held`` have one value for each channel."""
    trace, labels = inputs.record, inputs.labels
    names = next((trace.owners[id(tensor)] for tensor in reversed(held) if id(tensor) in trace.owners), [])
    if labels is not None and varies(labels, 1):
        if not names and any(tensor is not None for tensor in held):
            trace.pin(labels, "it passes a norm whose weights are computed")
        for name in names:
            trace.meet(name, output=True, labels=meeting(trace, labels, 1))
    return type(inputs)(value, labels, trace)


def _meet(trace: Trace, names: Sequence[str], *, output: bool, labels: Labels) -> None:
    for name in names if labels is not None else ():
        assert labels is not None
        trace.meet(name, output=output, labels=labels)


def _callees(trace: Trace, weight: Tensor, kinds: tuple[type[nn.Module], ...], groups: int = 1) -> list[str]:
    """Return the layers that a weight belongs to; none if they are of another kind."""
    names = trace.owners.get(id(weight), [])
    layers = [trace.layers[name] for name in names]
    fits = all(isinstance(layer, kinds) and getattr(layer, "groups", 1) == groups for layer in layers)
    return names if fits else []


def produce(trace: Trace, names: Sequence[str], count: int) -> Labels:
    """Return the labels of a layer's outputs, the same at every call; one output alone cannot be removed."""
    if not names or count < 2:
        return None
    if names[0] not in trace.produced:
        trace.produced[names[0]] = trace.new_labels(count)
    return trace.produced[names[0]]


FORWARD = tuple(kind for kind in CONVOLUTIONS if kind not in TRANSPOSED)
TURNED: dict[int, Callable[..., Tensor]] = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}
CONVOLVE: dict[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the axes of the weight
LAYERS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(CONVOLVE.values(), convolution),
    **dict.fromkeys(TURNED.values(), transposed),
    F.linear: linear,
    F.batch_norm: norm,
    F.instance_norm: instance_norm,
    torch.prelu: prelu,
    F.scaled_dot_product_attention: attention,
}
