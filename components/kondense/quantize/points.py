"""Where a network's values are quantized so that an integer engine runs its layers without a float between.

onnxruntime runs a convolution on integers only when its output, too, is quantized: through the
input of the next quantized layer where only ReLUs and the like lie between, else by a quantizer of
its own. Source: onnxruntime/core/optimizer/qdq_transformer (selectors, propagation, ReLU removal).
"""

from torch import fx, nn

from kondense.artifacts.dataflow import calls, only_user, trace

# Modules that commute with a quantizer or vanish into one.
TRANSPARENT = (nn.Identity, nn.ReLU, nn.ReLU6, nn.MaxPool2d, nn.Flatten, nn.Dropout)


def quantization_points(module: nn.Module, layers: list[str]) -> list[str]:
    """Return the modules whose inputs must be quantized so that ``layers`` run on integers.

    Args:
        module: the network, its batch norms folded.
        layers: the convolutions and linear layers whose weights become integers.
    """
    points = list(layers)
    graph = trace(module)
    if graph is None:
        return points
    nodes = calls(graph)
    modules = dict(module.named_modules())
    for name in layers:
        if isinstance(modules[name], nn.Conv2d) and name in nodes:
            points += [point for point in _output_points(nodes[name], nodes, modules, points) if point not in points]
    return points


def _output_points(
    node: fx.Node, nodes: dict[str, fx.Node], modules: dict[str, nn.Module], points: list[str]
) -> list[str]:
    """Return the modules to add so that the value of ``node`` reaches nothing but quantizers."""
    passed = []
    while True:
        user = only_user(node)
        name = _name(user, nodes)
        if name is None or name in points or not isinstance(modules[name], TRANSPARENT):
            break
        assert user is not None
        passed.append(name)
        node = user
    users = [_name(user, nodes) for user in node.users]
    if users and None not in users:
        return [name for name in users if name is not None]
    return passed[-1:]


def _name(node: fx.Node | None, nodes: dict[str, fx.Node]) -> str | None:
    """Return the name of the module that ``node`` calls, if it is the only call of it."""
    if node is None or node.op != "call_module" or str(node.target) not in nodes:
        return None
    return str(node.target)
