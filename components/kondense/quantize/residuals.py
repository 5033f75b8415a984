"""Quantizers around the additions of residual blocks, so that runtimes add integers.

onnxruntime adds integers where both operands and the sum are quantized. An operand that is the input of its block is
quantized there; one that a layer computes has a quantizer already, and the sum gets that of its readers.

Source: onnxruntime/core/optimizer/qdq_transformer/selectors_actions (BinarySelector).
"""

import operator
from collections.abc import Iterator, Sequence

import torch
from torch import fx, nn

from kondense.artifacts.dataflow import only_user
from kondense.artifacts.quantized import OUTPUT
from kondense.quantize.graph import Graph

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
AGAIN = "@"  # torch.fx marks the second call of a module with it


def residual_places(graph: Graph, places: Sequence[str]) -> list[str]:
    """Return the modules, blocks among them, whose inputs must also be quantized so that sums are of integers.

    Args:
        graph: of the network, its batch norms folded.
        places: the modules whose inputs are quantized for the layers' sake.
    """
    blocks = {addition: found for addition in _additions(graph) if (found := _operands(graph, addition, places))}
    while True:
        inside = {name for names in blocks.values() for name in names if name}
        after = {addition: _readers(graph, addition, [*places, *inside], inside) for addition in blocks}
        dropped = [addition for addition, found in after.items() if found is None]
        if not dropped:
            break
        for addition in dropped:
            del blocks[addition]
    found = [name for addition in blocks for name in (*blocks[addition], *(after[addition] or ())) if name]
    return [name for name in dict.fromkeys(found) if name not in places]


def _additions(graph: Graph) -> Iterator[fx.Node]:
    for node in graph.everything:
        called = node.op in ("call_function", "call_method") and node.target in ADDITIONS
        if called and len(node.args) == 2 and not node.kwargs and isinstance(node.args[1], fx.Node):
            yield node


def _operands(graph: Graph, addition: fx.Node, places: Sequence[str]) -> list[str] | None:
    """Return for each operand the block to quantize, empty for one with a quantizer; None if one cannot have any."""
    found = [
        "" if is_quantized(graph, operand, places) else _block(graph, addition, operand, places)
        for operand in addition.all_input_nodes
    ]
    return None if None in found else [name for name in found if name is not None]


def is_quantized(graph: Graph, node: fx.Node, places: Sequence[str]) -> bool:
    """Return whether ``node`` computes a quantized value, or one from it that is on the same grid."""
    while node.op == "call_module" and graph.passes_quantizer(node) and node.all_input_nodes:
        if graph.called(node) in places:
            return True
        node = node.all_input_nodes[0]
    return f"{graph.called(node)}{OUTPUT}" in places


def _block(graph: Graph, addition: fx.Node, value: fx.Node, places: Sequence[str]) -> str | None:
    """Return the innermost block around ``addition`` whose only input is ``value``, if quantized layers read it.

    A shortcut that is an Identity stands for the block.
    """
    if (name := graph.called(value)) and isinstance(graph.modules[name], nn.Identity):
        return name
    for name in reversed(_stack(addition)):
        if name in _stack(value) or AGAIN in name:
            return None
        members = [node for node in graph.everything if name in _stack(node)]
        inputs = {source for node in members for source in node.all_input_nodes if name not in _stack(source)}
        if {source for source in inputs if source.op != "get_attr"} == {value}:
            readers = [user for user in value.users if user is not addition]
            known = all(user in members and graph.called(user) in places for user in readers)
            return name if readers and known and name in graph.modules else None
    return None


def _readers(graph: Graph, addition: fx.Node, places: Sequence[str], blocks: set[str]) -> list[str] | None:
    """Return the modules to quantize behind ``addition`` so that all read integers; None if there are others."""
    node = addition
    while (user := only_user(node)) and graph.called(user) not in places and graph.passes_quantizer(user):
        node = user
    found = []
    for user in node.users:
        name = graph.called(user)
        if any(block in _stack(user) and block not in _stack(node) for block in blocks):
            continue
        if name is None:
            return None
        found.append(name)
    return found or ([] if node.users else None)


def _stack(node: fx.Node) -> list[str]:
    """Return the modules in whose forward ``node`` is, the outermost first."""
    return list(node.meta.get("nn_module_stack") or {})
