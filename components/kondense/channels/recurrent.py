"""What recurrent layers do with labels (see ``labels``): hidden units are channels (see ``hidden_units``).

Shapes: H hidden units.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kondense.artifacts.structure import RECURRENT
from kondense.channels.hidden_units import columns
from kondense.channels.labels import Labelled, Trace, meeting, spread, unwrapped
from kondense.channels.layer_rules import produce
from kondense.channels.own import axis_at, meet_axis


def _sequence(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return the rule of ``torch.lstm`` and its like: whole sequences through all layers of a module."""

    def rule(inputs: Any, hidden: Any, weights: Any, *settings: Any) -> Any:
        if not isinstance(inputs, Labelled) or not isinstance(weights, list | tuple) or not weights:
            return NotImplemented  # the form for packed sequences has other arguments
        layer = _meet(inputs, hidden, weights[0])
        if layer is None:
            return NotImplemented
        trace, (module, labels) = inputs.record, layer
        closed = _closed(trace, module, labels, weights, module._flat_weights_names)
        values = run(inputs.value, unwrapped(hidden), closed, *settings)
        directions = 2 if module.bidirectional else 1
        wide = [labels.repeat(directions), *[labels] * (len(values) - 1)]
        return tuple(
            type(inputs)(value, spread(each, -1, value.shape), trace) for value, each in zip(values, wide, strict=True)
        )

    return rule


def _cell(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return the rule of ``torch.lstm_cell`` and its like: one step."""

    def rule(inputs: Any, hidden: Any, *weights: Any) -> Any:
        layer = _meet(inputs, hidden, weights[0]) if isinstance(inputs, Labelled) else None
        if layer is None:
            return NotImplemented
        trace, (module, labels) = inputs.record, layer
        closed = _closed(trace, module, labels, weights, ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        values = run(inputs.value, unwrapped(hidden), *closed)
        made = [
            type(inputs)(value, spread(labels, -1, value.shape), trace)
            for value in (values if isinstance(values, tuple) else (values,))
        ]
        return tuple(made) if isinstance(values, tuple) else made[0]

    return rule


def _meet(inputs: Labelled, hidden: Any, weight: Any) -> tuple[Any, Tensor] | None:
    """Record what a recurrent layer reads; return the layer and the labels of its hidden units [H]."""
    trace = inputs.record
    names = trace.owners.get(id(weight), [])
    if not names or not isinstance(trace.layers[names[0]], RECURRENT):
        return None
    module: Any = trace.layers[names[0]]
    labels = produce(trace, names, module.hidden_size)
    if labels is None:
        return None
    for name in names:
        trace.meet(name, output=True, labels=labels)
        if inputs.labels is not None:
            trace.meet(name, output=False, labels=meeting(trace, inputs.labels, -1))
    for state in hidden if isinstance(hidden, list | tuple) else (hidden,):
        if isinstance(state, Labelled) and state.labels is not None:
            trace.tie(meeting(trace, state.labels, -1), labels)
        elif (held := axis_at(state, -1)) is not None:
            meet_axis(trace, held, labels)
    return module, labels


def _closed(
    trace: Trace, module: Any, labels: Tensor, weights: Sequence[Any], names: Sequence[str]
) -> list[Tensor | None]:
    """Return the weights, with zeros where a lacking hidden unit is read."""
    lost = trace.lost(labels)
    if lost is None:
        return [unwrapped(weight) for weight in weights]
    closed = []
    for key, weight in zip(names, weights, strict=True):
        read = columns(module, key, lost)
        closed.append(weight if read is None else weight.index_fill(1, read, 0.0))
    return closed


RULES: dict[Any, Callable[..., Any]] = {
    **{run: _sequence(run) for run in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)},
    **{run: _cell(run) for run in (torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell)},
}
