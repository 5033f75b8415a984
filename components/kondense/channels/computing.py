"""Layers that compute with what they make of their weights in a forward of their own: standardised, scaled, masked.

Such a layer reads its inputs and makes its outputs like any other of its kind. What it makes of its weights may depend
on all inputs, as the mean does that a standardised convolution subtracts: without some it is that of the others (see
``statistics``).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kondense.channels.groups import WEIGHTED, axis_of_channels, by_input, by_output, is_depthwise, parts_of
from kondense.channels.labels import Labelled, Trace, meeting, spread
from kondense.channels.layer_rules import produce
from kondense.channels.surgery import keep_inputs_of, restored, side_length
from kondense.networks.layers import CONVOLUTIONS


def computing_layers(trace: Trace) -> frozenset[str]:
    """Return the layers that have a forward of their own whose outputs a pass did not know for theirs."""
    return frozenset(
        name
        for name in trace.ran
        if isinstance(layer := trace.layers[name], WEIGHTED) and (name, True) not in trace.sides and _has_forward(layer)
    )


def _has_forward(layer: nn.Module) -> bool:
    kind = next(kind for kind in (*CONVOLUTIONS, nn.Linear) if isinstance(layer, kind))
    own = {key for part in type(layer).__mro__[: type(layer).__mro__.index(kind)] for key in vars(part)}
    return bool(own & {"forward", "_conv_forward"})


@contextlib.contextmanager
def followed(trace: Trace, wrap: Callable[[Tensor, Tensor | None], Labelled]) -> Iterator[None]:
    """Follow the trace's computing layers as wholes, while the block runs."""
    layers = [(name, trace.layers[name]) for name in trace.computing]
    before = [vars(layer).get("forward") for _, layer in layers]
    for name, layer in layers:
        layer.forward = _rule(trace, name, layer, layer.forward, wrap)
    try:
        yield
    finally:
        for (_, layer), forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _rule(
    trace: Trace,
    name: str,
    layer: Any,
    forward: Callable[..., Any],
    wrap: Callable[[Tensor, Tensor | None], Labelled],
) -> Callable[..., Any]:
    axis = axis_of_channels(layer)

    def run(inputs: Any) -> Any:
        if not isinstance(inputs, Labelled):
            return forward(inputs)
        if _counts_otherwise(layer):
            trace.misused.setdefault(name, "it counts its channels otherwise than its weights do")
            trace.pin(inputs.labels, trace.misused[name])
            return wrap(forward(inputs.value), None)
        along = meeting(trace, inputs.labels, axis) if inputs.labels is not None else None
        value = inputs.value
        if is_depthwise(layer):
            outputs = along.repeat_interleave(layer.out_channels // layer.groups) if along is not None else None
        else:
            outputs = produce(trace, [name], side_length(layer, output=True))
            if along is not None:
                trace.meet(name, output=False, labels=along)
                trace.statistics.append(along)
        if outputs is not None:
            trace.meet(name, output=True, labels=outputs)
        kept = trace.kept(along) if along is not None and not is_depthwise(layer) else None
        result = forward(value) if kept is None else _without(layer, forward, value, kept)
        if outputs is not None and result.shape[axis] != len(outputs):
            trace.misused.setdefault(name, "it gives only a part of its outputs")
            outputs = None
        return wrap(result, spread(outputs, axis, result.shape) if outputs is not None else None)

    return run


def _counts_otherwise(layer: Any) -> bool:
    """Return whether a layer's numbers are not those of its weight, as where its forward sets them to use a part."""
    if not isinstance(layer.weight, Tensor):
        return False
    outputs, inputs = (side_length(layer, output=output) for output in (True, False))
    return len(by_output(layer, layer.weight)) != outputs or len(by_input(layer, layer.weight)) != inputs


@torch.no_grad()
def _without(layer: nn.Module, forward: Callable[..., Any], value: Tensor, kept: Tensor) -> Tensor:
    """Run a layer without the inputs that are not ``kept``."""
    if len(kept) % parts_of(layer):
        return forward(value)
    with restored(layer):
        keep_inputs_of(layer, kept)
        return forward(value.index_select(axis_of_channels(layer), kept))
