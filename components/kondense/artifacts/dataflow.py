"""The data flow between the modules of a network, traced by torch.fx."""

from collections import Counter

from torch import fx, nn


def trace(module: nn.Module) -> fx.Graph | None:
    """Return the graph of ``module``'s forward pass, or None if its control flow depends on data.

    Modules of torch.nn are leaves, as in ``torch.fx.symbolic_trace``.
    """
    try:
        return fx.Tracer().trace(module)
    except (fx.proxy.TraceError, TypeError, RuntimeError):
        return None  # Python control flow over tensors cannot be traced


def calls(graph: fx.Graph) -> dict[str, fx.Node]:
    """Return the node of every module that is called exactly once, by module name."""
    nodes = [node for node in graph.nodes if node.op == "call_module"]
    count = Counter(node.target for node in nodes)
    return {str(node.target): node for node in nodes if count[node.target] == 1}


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the only node that uses ``node``'s value, or None if there are several or none."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None
