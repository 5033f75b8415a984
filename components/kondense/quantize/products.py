"""Quantizers around products, their gates and means over positions, so that runtimes compute them on integers.

onnxruntime multiplies integers where both factors and the product are quantized, and takes sigmoids of integers from a
table and means over all positions in integers likewise. A SiLU is such a product, of a value and its sigmoid; where the
value is on a grid, the sigmoid and the product get one, too. What reads such a value must read integers itself, else it
stays as it is.

Source: onnxruntime/core/optimizer/qdq_transformer/selectors_actions (UnarySelector, BinarySelector).
"""

import operator
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import fx, nn

from kondense.artifacts.gates import is_silu
from kondense.artifacts.quantized import OUTPUT
from kondense.quantize.graph import Graph
from kondense.quantize.residuals import is_quantized

PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
SIGMOIDS = (nn.Sigmoid,)
# They have no kernel for integers; their outputs are quantized for the product that reads them.
GATES = (nn.Hardsigmoid, nn.Hardswish)
SIGMOID = ".sigmoid"  # of a SigmoidProduct


def product_places(graph: Graph, places: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the further places to quantize, and the SiLUs among them that become SigmoidProducts.

    Args:
        graph: of the network, its batch norms folded.
        places: those whose values are quantized for layers and sums.
    """
    chosen = set(_candidates(graph))
    while dropped := {node for node in chosen if not _computes_integers(graph, node, places, chosen)}:
        chosen -= dropped
    found, silus = list[str](), list[str]()
    for node in (node for node in graph.everything if node in chosen):
        name = graph.called(node)
        if name is None or _is_mean(graph, node):
            continue
        if is_silu(graph.modules[name]):
            silus.append(name)
            found.append(name + SIGMOID + OUTPUT)
        if any(graph.called(reader) not in places for reader in _readers(graph, node, places)):
            found.append(name + OUTPUT)
    return found, silus


def _candidates(graph: Graph) -> Iterator[fx.Node]:
    for node in graph.everything:
        if _is_product(node) or _is_mean(graph, node) or _is_gate(graph, node):
            yield node


def _is_product(node: fx.Node) -> bool:
    called = node.op in ("call_function", "call_method") and node.target in PRODUCTS
    return called and len(node.args) == 2 and not node.kwargs and all(isinstance(each, fx.Node) for each in node.args)


def _is_gate(graph: Graph, node: fx.Node) -> bool:
    module = graph.modules[name] if (name := graph.called(node)) else None
    return module is not None and (type(module) in (*SIGMOIDS, *GATES) or is_silu(module))


def _is_mean(graph: Graph, node: fx.Node) -> bool:
    """Return whether ``node`` is the mean of [N, C, H, W] over all positions, [N, C, 1, 1]."""
    if node.op == "call_module":
        module = graph.modules[str(node.target)]
        return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
    if node.target is F.adaptive_avg_pool2d:
        return node.args[1:] in ((1,), ((1, 1),), ([1, 1],))
    if node.target not in (torch.mean, "mean"):
        return False
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    kept = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim")
    return kept is True and isinstance(axes, tuple | list) and tuple(axes) in ((2, 3), (-2, -1), (3, 2), (-1, -2))


def _computes_integers(graph: Graph, node: fx.Node, places: Sequence[str], chosen: set[fx.Node]) -> bool:
    """Return whether all that ``node`` reads is on a grid, and all that reads it reads integers."""
    name = graph.called(node)
    if name in places:
        values: list[fx.Node] = []  # what it reads is quantized in front of it
    elif name and type(graph.modules[name]) in GATES:
        values = []  # computed in float
    else:
        values = node.all_input_nodes
    if not all(value in chosen or is_quantized(graph, value, places) for value in values):
        return False
    own = _is_gate(graph, node)  # whether its output can have a place of its own
    readers = _readers(graph, node, places)
    return bool(readers) and all(graph.called(each) in places or (own and each in chosen) for each in readers)


def _readers(graph: Graph, node: fx.Node, places: Sequence[str]) -> list[fx.Node]:
    """Return what reads the value of ``node``, behind what commutes with a quantizer."""
    found = []
    for user in node.users:
        through = graph.called(user) not in places and graph.passes_quantizer(user)
        found += _readers(graph, user, places) if through else [user]
    return found
