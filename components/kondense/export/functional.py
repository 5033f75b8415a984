"""A traced program in functional operators, without torch's second trace of the whole network.

torch's exporter runs ``run_decompositions`` over every program, which interprets each operator several times with
symbolic shapes; that takes longer than the rest of an export together. Most networks need it for a few kinds of
operators, whose results are known. A program with any other that torch would rewrite is left to torch.

Shapes: images [N, C, H, W]; N is symbolic.
"""

import itertools
import operator
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import fx
from torch._export.utils import _check_valid_to_preserve, _is_cia_op  # what run_decompositions asks
from torch.export.graph_signature import InputKind, InputSpec

aten = torch.ops.aten
Overload = torch._ops.OpOverload
SYMBOLIC = "onnx_symbolic"  # namespace of the operators of torch.onnx.ops
OF_SIZES = (operator.getitem, operator.mul, operator.add, operator.sub, aten.sym_size.int)
NORMALISE = aten._native_batch_norm_legit_no_training.default
Step = Callable[[], None]


def make_functional(program: torch.export.ExportedProgram, known: Collection[Any], rewritten: Collection[Any]) -> bool:
    """Rewrite ``program`` in place to what ``run_decompositions`` makes of it, or return False and leave it.

    Args:
        program: from ``trace_program``, with one input.
        known: the operators that the exporter translates.
        rewritten: the operators that torch's table of decompositions holds.
    """
    graph = program.graph
    steps: list[Step] = []
    for node in graph.nodes:
        if node.op in ("placeholder", "output") or (node.op == "call_function" and node.target in OF_SIZES):
            continue
        step = _step(node, known) if node.op == "call_function" else None
        if step is not None:
            steps.append(step)
        elif node.op != "call_function" or not _stays(node.target, known, rewritten):
            return False
    if steps:
        _one_batch_size(graph)
    for step in steps:
        step()
    graph.eliminate_dead_code()
    _order_constants(program)
    program.graph_module.recompile()
    return True


def _stays(target: Any, known: Collection[Any], rewritten: Collection[Any]) -> bool:
    """Return whether torch leaves an operator as it is."""
    if not isinstance(target, Overload) or target._schema.is_mutable:
        return False
    if target.namespace == SYMBOLIC:
        return True
    return target in known and target not in rewritten and (not _is_cia_op(target) or _check_valid_to_preserve(target))


def _step(node: fx.Node, known: Collection[Any]) -> Step | None:
    """Return what rewrites ``node``, or None if there is no rule for it."""
    target = node.target
    if target in RULES:
        fits, rewrite = RULES[target]
        return (lambda: rewrite(node)) if fits(node) else None
    if isinstance(target, Overload) and target._schema.is_mutable and (pure := _pure(target)) in known:
        return (lambda: _compute_anew(node, pure)) if _alone(node) else None
    return None


def _replace(node: fx.Node, target: Any, arguments: tuple[Any, ...]) -> None:
    node.target, node.args = target, arguments


def _pass(node: fx.Node) -> None:
    """Let the readers of ``node`` read its input."""
    node.replace_all_uses_with(node.all_input_nodes[0])
    node.graph.erase_node(node)


def _view(node: fx.Node, sizes: Any) -> None:
    source = node.all_input_nodes[0]
    if not _contiguous(source):  # torch copies where it must; ONNX has no layout in memory
        with node.graph.inserting_before(node):
            copied = node.graph.call_function(aten.clone.default, (source,))
        copied.meta = node.meta | {"val": source.meta["val"]}
        _copy(copied)
        source = copied
    _replace(node, aten.view.default, (source, sizes))


def _sizes(node: fx.Node) -> list[Any]:
    return [size if isinstance(size, int) else _batch_size(node.graph) for size in node.meta["val"].shape]


def _copy(node: fx.Node) -> None:
    node.target, node.kwargs = aten.clone.default, {"memory_format": torch.contiguous_format}
    node.meta = node.meta | {"val": node.meta["val"].contiguous()}


def _normalise(node: fx.Node) -> None:
    """Use the operator of inference; its further values are empty."""
    *tensors, _, momentum, eps, _ = node.args
    value = node.meta["val"]
    with node.graph.inserting_before(node):
        made = node.graph.call_function(NORMALISE, (*tensors, momentum, eps))
    made.meta = node.meta | {"val": (value, value.new_empty(0), value.new_empty(0))}
    _replace(node, operator.getitem, (made, 0))


def _compute_anew(node: fx.Node, pure: Any) -> None:
    """Compute a new value, and let whoever reads the overwritten one later read the new one."""
    node.target, changed = pure, node.all_input_nodes[0]
    later = False
    for other in node.graph.nodes:
        if later:
            other.replace_input_with(changed, node)
        later = later or other is node


def _pure(target: Any) -> Any:
    """Return the operator that computes what ``target`` writes into its first argument, if there is one."""
    space, _, name = target._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, space), name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, target._overloadname, None)


def _alone(node: fx.Node) -> bool:
    """Return whether the value that ``node`` overwrites is an operator's own, and no earlier view shares its memory."""
    value = node
    while isinstance(value.target, Overload) and value.target._schema.is_mutable:
        value = value.all_input_nodes[0]
    if value.op != "call_function" or _aliases(value):
        return False
    same = [value]  # and the values under which it is known after it was overwritten
    for each in same:
        for reader in each.users:
            if isinstance(reader.target, Overload) and reader.target._schema.is_mutable and reader.args[0] is each:
                same.append(reader)
            if reader < node and _aliases(reader):  # in the order of execution
                return False
    return True


def _aliases(node: fx.Node) -> bool:
    """Return whether the value of ``node`` may be a view of its input; one that it overwrites counts as its own."""
    if not isinstance(node.target, Overload):
        return node.op != "output"
    if node.target in (aten.dropout.default, aten.dropout_.default):
        return True
    composite = _is_cia_op(node.target) and not _check_valid_to_preserve(node.target)
    if composite and node.target is not aten.batch_norm.default:
        return not node.target._schema.is_mutable
    schema = node.target._schema
    return not schema.is_mutable and any(value.alias_info is not None for value in schema.returns)


def _one_batch_size(graph: fx.Graph) -> None:
    """Let all that reads the number of images read it from the same node, at the start of ``graph``."""
    first = _batch_size(graph)
    for node in list(graph.nodes):
        if node is not first and node.target is aten.sym_size.int and str(node.meta["val"]) == str(first.meta["val"]):
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def _batch_size(graph: fx.Graph) -> fx.Node:
    """Return the node with the number of images, behind the inputs."""
    images = _images(graph)
    if images.next.target is not aten.sym_size.int or images.next.args != (images, 0):
        with graph.inserting_after(images):
            made = graph.call_function(aten.sym_size.int, (images, 0))
        made.meta["val"] = images.meta["val"].shape[0]
    return images.next


def _order_constants(program: torch.export.ExportedProgram) -> None:
    """Order the constants of ``program`` as torch does: by the tree of modules, those with parameters first."""
    specs = program.graph_signature.input_specs
    tree: dict[str, Any] = {}
    for spec in sorted(specs, key=lambda spec: spec.kind is InputKind.CONSTANT_TENSOR):
        place: dict[str, Any] = tree
        for part in (spec.target or "").split(".")[:-1]:
            place = place.setdefault(part, {})
        place.setdefault("", []).append(spec)
    constants = [spec for spec in _walked(tree) if spec.kind is InputKind.CONSTANT_TENSOR]
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    places = [index for index, spec in enumerate(specs) if spec.kind is InputKind.CONSTANT_TENSOR]
    for index, spec in zip(places, constants, strict=True):
        specs[index] = spec
    for before, after in itertools.pairwise(specs):
        nodes[before.arg.name].append(nodes[after.arg.name])


def _walked(tree: dict[str, Any]) -> Iterator[InputSpec]:
    yield from tree.get("", [])
    for part, child in tree.items():
        if part:
            yield from _walked(child)


def _sizes_known(node: fx.Node) -> bool:
    """Return whether every axis of ``node`` has a known number of values, or one per image."""
    batch = str(_images(node.graph).meta["val"].shape[0])
    return all(isinstance(size, int) or str(size) == batch for size in node.meta["val"].shape)


def _contiguous(node: fx.Node) -> bool:
    return bool(node.meta["val"].is_contiguous())


def _images(graph: fx.Graph) -> fx.Node:
    return [node for node in graph.nodes if node.op == "placeholder"][-1]


def _pool(node: fx.Node) -> None:
    _replace(node, aten.mean.dim, (node.args[0], [-1, -2], True))


# What torch rewrites, by operator: whether the rule holds for a node, and the rewriting.
RULES: dict[Any, tuple[Callable[[fx.Node], bool], Callable[[fx.Node], None]]] = {
    aten.reshape.default: (lambda node: True, lambda node: _view(node, node.args[1])),
    aten.contiguous.default: (lambda node: len(node.args) == 1 and not node.kwargs, _copy),
    aten.dropout.default: (lambda node: node.args[2] is False, _pass),
    aten.dropout_.default: (lambda node: node.args[2] is False, _pass),
    aten.adaptive_avg_pool2d.default: (
        lambda node: bool(node.args[1] == [1, 1]) and _contiguous(node.all_input_nodes[0]),
        _pool,
    ),
    aten.flatten.using_ints: (_sizes_known, lambda node: _view(node, _sizes(node))),
    aten.unflatten.int: (_sizes_known, lambda node: _view(node, _sizes(node))),
    aten.batch_norm.default: (lambda node: node.args[5] is False, _normalise),
}
