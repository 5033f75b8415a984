"""The data flow between the modules of a network: traced by torch.fx, else recorded from a run on images."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from kondense.artifacts.recording import GraphError, record

MOST_NODES = 100_000  # a longer graph counts as none: the walk through a network must end


class Tracer(fx.Tracer):
    """torch.fx's tracer with a bound on the length of the graph."""

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Add a node.

        Raises:
            GraphError: the graph is too long.
        """
        if len(self.graph.nodes) > MOST_NODES:
            raise GraphError(f"its graph has more than {MOST_NODES} nodes")
        return super().create_node(*args, **kwargs)


def trace(module: nn.Module, batches: Sequence[Tensor] = ()) -> fx.Graph | None:
    """Return the graph of ``module``'s forward pass, or None if there is none (see ``find_graph``)."""
    return find_graph(module, batches)[0]


def find_graph(module: nn.Module, batches: Sequence[Tensor] = ()) -> tuple[fx.Graph | None, str]:
    """Return the graph of ``module``'s forward pass, or None and the reason if its path depends on data.

    Modules of torch.nn are leaves, as in ``torch.fx.symbolic_trace``.

    Args:
        module: the network; not changed.
        batches: images [N, C, H, W]; where torch.fx cannot trace the network, the graph is recorded from a run on the
            first batch.
    """
    try:
        return Tracer().trace(module), ""
    except Exception as error:  # forward runs on stand-ins for tensors: the network's own code may raise anything
        reason = error
    for batch in batches[:1]:
        try:
            return record(module, batch), ""
        except Exception as error:  # as above, from a run
            reason = error
    return None, f"{type(reason).__name__}: {' '.join(str(reason).split())[:160]}"


def calls(graph: fx.Graph) -> dict[str, fx.Node]:
    """Return the node of every module that is called exactly once and only called, by module name.

    Left out are modules whose parameters other code reads, such as ``self.embed.weight`` in a forward.
    """
    nodes = [node for node in graph.nodes if node.op == "call_module"]
    count = Counter(node.target for node in nodes)
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    return {str(node.target): node for node in nodes if count[node.target] == 1 and str(node.target) not in read}


def only_user(node: fx.Node) -> fx.Node | None:
    """Return the only node that uses ``node``'s value, or None if there are several or none."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None


# Modules that keep the number of axes, whatever it is.
SAME_RANK = (nn.Linear, nn.Identity, nn.Dropout, nn.BatchNorm1d, nn.LayerNorm, nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh)


def ranks(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[fx.Node, int]:
    """Return the number of axes of the values of ``graph`` as far as it follows from images [N, C, H, W]."""
    known: dict[fx.Node, int] = {}
    for node in graph.nodes:
        source = next((known.get(each) for each in node.all_input_nodes), None)
        rank = _rank(node, modules, source)
        if rank is not None:
            known[node] = rank
    return known


def _rank(node: fx.Node, modules: dict[str, nn.Module], source: int | None) -> int | None:
    if node.op == "call_module":
        return _module_rank(modules[str(node.target)], source)
    if node.op == "placeholder":
        return 4
    if node.op == "call_method" and node.target in ("view", "reshape"):
        sizes = node.args[1:]
        return len(sizes[0]) if isinstance(sizes[0], tuple | list) else len(sizes)
    return 2 if flattens(node) else None


def _module_rank(module: nn.Module, source: int | None) -> int | None:
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
        return 4
    if isinstance(module, nn.Flatten):
        return 2 if (module.start_dim, module.end_dim) == (1, -1) else None
    return source if isinstance(module, SAME_RANK) else None


def flattens(node: fx.Node) -> bool:
    """Return whether a function or method merges all axes but the first, channel by channel."""
    if getattr(node.target, "__name__", node.target) != "flatten":
        return False
    start = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
    end = node.kwargs.get("end_dim", node.args[2] if len(node.args) > 2 else -1)
    return (start, end) == (1, -1)
