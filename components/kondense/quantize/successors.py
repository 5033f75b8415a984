"""Which layer follows which, where nothing but operations of one channel's values lie between."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import fx, nn

from kondense.artifacts.dataflow import calls, only_user, trace

# What commutes with a positive factor per channel.
HOMOGENEOUS = (
    nn.Identity,
    nn.ReLU,
    nn.LeakyReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.Dropout,
)
FUNCTIONS = (torch.relu, F.relu, torch.flatten, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)
METHODS = ("relu", "flatten")


@dataclasses.dataclass(frozen=True)
class Flow:
    """The traced graph of a network; without nodes where it cannot be traced."""

    nodes: dict[str, fx.Node]
    modules: dict[str, nn.Module]


def trace_flow(module: nn.Module) -> Flow:
    """Return the flow of values between the modules of ``module``."""
    graph = trace(module)
    return Flow(calls(graph) if graph is not None else {}, dict(module.named_modules()))


def next_layer(name: str, flow: Flow) -> str | None:
    """Return the only convolution or linear layer that reads the output of ``name``, channel by channel, if any."""
    node = flow.nodes.get(name)
    while node is not None:
        node = only_user(node)
        if node is None:
            return None
        if node.op == "call_module":
            reader = str(node.target)
            if type(flow.modules[reader]) in (nn.Conv2d, nn.Linear):
                return reader if reader in flow.nodes else None
            if not isinstance(flow.modules[reader], HOMOGENEOUS):
                return None
        elif not (
            (node.op == "call_function" and node.target in FUNCTIONS)
            or (node.op == "call_method" and node.target in METHODS)
        ):
            return None
    return None


def meets_relu(name: str, flow: Flow) -> bool:
    """Tell whether nothing but ReLU sees the output of ``name``."""
    node = flow.nodes.get(name)
    while node is not None:
        node = only_user(node)
        if node is None or node.op == "output":
            return False
        if node.op != "call_module":
            return node.target in (torch.relu, F.relu, "relu")
        module = flow.modules[str(node.target)]
        if not isinstance(module, nn.Identity):
            return isinstance(module, nn.ReLU)
    return False
