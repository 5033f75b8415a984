"""The dataflow between a network's layers: where quantizers belong, and which layers are neighbours."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from kondense.artifacts.dataflow import calls, flattens, only_user, trace
from kondense.artifacts.quantized import OUTPUT

# What a module without weights commutes with.
FACTOR = "a positive factor per channel"
QUANTIZER = "a quantizer, or it merges into one"
TRANSPARENT: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.Identity: (FACTOR, QUANTIZER),
    nn.ReLU: (FACTOR, QUANTIZER),
    nn.Hardtanh: (QUANTIZER,),  # ReLU6, too
    nn.LeakyReLU: (FACTOR,),
    nn.MaxPool2d: (FACTOR, QUANTIZER),
    nn.AvgPool2d: (FACTOR,),
    nn.AdaptiveAvgPool2d: (FACTOR,),
    nn.AdaptiveMaxPool2d: (FACTOR,),
    nn.Flatten: (FACTOR, QUANTIZER),
    nn.Dropout: (FACTOR, QUANTIZER),
}
# Modules and functions that commute with a positive factor per channel, whichever axis the channels lie on.
ELEMENTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Dropout)
ELEMENTWISE_FUNCTIONS = (torch.relu, F.relu, "relu", torch.relu_, F.relu_, "relu_")
CLIPPING_FUNCTIONS = (F.relu6, F.hardtanh, torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_")
QUANTIZER_FUNCTIONS = (*ELEMENTWISE_FUNCTIONS, *CLIPPING_FUNCTIONS, F.max_pool2d, torch.max_pool2d, F.dropout)
# Functions that also do if the channels are the second axis of four.
POOLING_FUNCTIONS = (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, torch.max_pool2d)


@dataclasses.dataclass(frozen=True)
class Graph:
    """The traced graph of a network; it has no nodes where the network cannot be traced.

    Attributes:
        nodes: of the modules that are called exactly once, by name.
        modules: all modules by name.
        everything: all nodes, in the order of execution.
    """

    nodes: Mapping[str, fx.Node]
    modules: Mapping[str, nn.Module]
    everything: Sequence[fx.Node] = ()

    def called(self, node: fx.Node | None) -> str | None:
        """Return the name of the module that ``node`` calls, if this is its only call."""
        if node is None or node.op != "call_module" or str(node.target) not in self.nodes:
            return None
        return str(node.target)

    def commutes(self, name: str, operation: str) -> bool:
        """Return whether the module ``name`` commutes with FACTOR or QUANTIZER."""
        return any(isinstance(self.modules[name], kind) for kind in TRANSPARENT if operation in TRANSPARENT[kind])

    def passes_quantizer(self, node: fx.Node) -> bool:
        """Return whether ``node`` commutes with a quantizer, such as a ReLU that several layers share."""
        if node.op == "call_module":
            return self.commutes(str(node.target), QUANTIZER)
        return node.target in QUANTIZER_FUNCTIONS or flattens(node)


def trace_graph(module: nn.Module, batches: Sequence[Tensor] = ()) -> Graph:
    """Return the dataflow between the modules of ``module``; ``batches`` of images help where torch.fx cannot trace."""
    graph = trace(module, batches)
    nodes = list(graph.nodes) if graph is not None else []
    return Graph(calls(graph) if graph is not None else {}, dict(module.named_modules()), nodes)


def quantizer_places(graph: Graph, layers: list[str]) -> list[str]:
    """Return the places that must be quantized so that ``layers`` run on integers: modules' inputs, or outputs.

    onnxruntime runs a convolution on integers only when its output is quantized too: through the input of the next
    quantized layer where only what commutes with a quantizer is in between, else by a quantizer of its own, in front of
    the last such module or on its output.

    Args:
        graph: of the network, its batch norms folded.
        layers: the convolutions and linear layers whose weights become integers.

    Source: onnxruntime/core/optimizer/qdq_transformer (selectors, propagation, ReLU removal).
    """
    places = list(layers)
    for name in layers:
        if isinstance(graph.modules[name], nn.Conv2d) and name in graph.nodes:
            places += [place for place in _output_places(graph, name, places) if place not in places]
    return places


def _output_places(graph: Graph, name: str, places: list[str]) -> list[str]:
    """Return the places to add so that the output of ``name`` reaches quantizers only."""
    node, passed = graph.nodes[name], []
    while (user := only_user(node)) and graph.called(user) not in places and graph.passes_quantizer(user):
        passed += [called] if (called := graph.called(user)) else []
        node = user
    users = [graph.called(user) for user in node.users]
    if users and None not in users:
        return [user for user in users if user is not None]
    if any(user.op == "output" for user in node.users):  # logits on a grid would tie
        return passed[-1:]
    return passed[-1:] or [name + OUTPUT]


def next_layer(graph: Graph, name: str) -> str | None:
    """Return the only convolution or linear layer that reads the output of ``name`` channel by channel, if any.

    The channels of a convolution are the second axis of four; flattened, they lie one after the other for a linear
    layer. Those of a linear layer are the last axis and must stay the last.
    """
    node, flat = graph.nodes.get(name), False
    last = isinstance(graph.modules[name], nn.Linear)  # whether the channels are the last axis
    while node is not None and (node := only_user(node)) is not None:
        if node.op == "call_module" and type(graph.modules[str(node.target)]) in (nn.Conv2d, nn.Linear):
            return _reader(graph, name, str(node.target), last=last, flat=flat)
        if _flattens(graph, node):
            flat = True
        elif not _keeps_channels(graph, node, last=last or flat):
            return None
    return None


def _reader(graph: Graph, name: str, reader: str, *, last: bool, flat: bool) -> str | None:
    """Return ``reader`` if it reads the channels of ``name`` on the axis where they lie."""
    layer = graph.modules[reader]
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    fits = not (last or flat) if isinstance(layer, nn.Conv2d) else last or flat
    if last and layer.weight.shape[1] != len(graph.modules[name].get_parameter("weight")):
        fits = False  # several places were flattened, each with all channels
    return reader if fits and reader in graph.nodes else None


def _flattens(graph: Graph, node: fx.Node) -> bool:
    if node.op != "call_module":
        return flattens(node)
    module = graph.modules[str(node.target)]
    return isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)


def _keeps_channels(graph: Graph, node: fx.Node, *, last: bool) -> bool:
    """Return whether ``node`` commutes with a positive factor per channel: on the last axis, or the second of four."""
    if node.op != "call_module":
        return node.target in ELEMENTWISE_FUNCTIONS or (not last and node.target in POOLING_FUNCTIONS)
    name = str(node.target)
    if isinstance(graph.modules[name], nn.Flatten):
        return False
    return isinstance(graph.modules[name], ELEMENTWISE) or (not last and graph.commutes(name, FACTOR))


def only_relu_follows(graph: Graph, name: str) -> bool:
    """Return whether a ReLU is all that reads the output of ``name``."""
    node = graph.nodes.get(name)
    while node is not None and (node := only_user(node)) is not None and node.op != "output":
        if node.op != "call_module":
            return node.target in (torch.relu, F.relu, "relu")
        module = graph.modules[str(node.target)]
        if not isinstance(module, nn.Identity):
            return isinstance(module, nn.ReLU)
    return False
