"""The storage of integer weights in an ONNX graph.

Shapes: weight [O, I, ...], scale [O] or [].
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def store_packed(proto: onnx.ModelProto) -> None:
    """Store the integers behind every DequantizeLinear of a constant in 4 bits where they fit, else under Cast and Mul.

    Runtimes fold Cast and Mul of constants while loading, but compute DequantizeLinear in every run. Few know a Cast of
    4-bit integers, onnxruntime from 1.23 on; DequantizeLinear takes them from 1.19 on. OpenVINO 2026.4 computes 4-bit
    layers with an odd number of weights per output wrong, so these remain in 8 bits. The values are the same:
    float(integer) * scale.
    """
    graph = proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            nodes.append(node)
            continue
        integers, scale = (constants[name] for name in node.input[:2])
        values = numpy_helper.to_array(integers)
        if fits_nibbles(values):
            packed = pack_nibbles(values.ravel()).tobytes()
            integers.CopyFrom(helper.make_tensor(integers.name, TensorProto.INT4, values.shape, packed, raw=True))
            del node.input[2:]  # the zero point, 0 by default
            nodes.append(node)
            continue
        factors = numpy_helper.to_array(scale).reshape(-1, *[1] * (values.ndim - 1))
        scale.CopyFrom(numpy_helper.from_array(factors if factors.size > 1 else factors.reshape(()), scale.name))
        cast = f"{node.output[0]}_float"
        nodes.append(helper.make_node("Cast", [integers.name], [cast], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [cast, scale.name], list(node.output)))
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)


def fits_nibbles(values: NDArray[np.int8]) -> bool:
    """Return whether a weight [O, I, ...] is stored in 4 bits."""
    return bool(values.ndim > 1 and values.size and (values.size // len(values)) % 2 == 0 and np.abs(values).max() <= 7)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the constants that no node reads, in place."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    constants = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def merge_tied(graph: onnx.GraphProto) -> None:
    """Store equal constants of more than one value once, in place; the exporter writes a tied weight several times."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renamed = {}
    for constant in graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.size > 1:
            key = (constant.data_type, tuple(constant.dims), values.tobytes())
            renamed[constant.name] = first.setdefault(key, constant.name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    drop_unread(graph)


def pack_nibbles(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return two 4-bit integers per byte, the first in the low half (onnx.proto, TensorProto.INT4)."""
    nibbles = values.astype(np.uint8) & 15
    if len(nibbles) % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    return np.bitwise_or(nibbles[::2], np.left_shift(nibbles[1::2], 4), dtype=np.uint8)


def separate_integers(proto: onnx.ModelProto) -> None:
    """Give every layer its own DequantizeLinear, weight and zero point, in place; the exporter merges equal ones.

    onnxruntime 1.32 refuses shared ones with "Attempt to replace the existing tensor" when
    ``session.x64quantprecision`` makes it rewrite int8 weights to uint8.
    """
    graph = proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    _separate_nodes(graph, constants)
    used: set[str] = set()
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        weight = node.input[0]
        for place, suffix in ((0, "again"), (2, "zero_point")):
            if len(node.input) > place and node.input[place] in used:
                copied = graph.initializer.add()
                copied.CopyFrom(constants[node.input[place]])
                name = f"{weight}_{suffix}"
                while name in constants:
                    name += "_"
                copied.name = node.input[place] = name
                constants[name] = copied
            used.update(node.input[place : place + 1])


def _separate_nodes(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Repeat every DequantizeLinear of a constant for each further node that reads it, in place."""
    shared = {
        node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    read: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in shared and name in read:
                again = onnx.NodeProto()
                again.CopyFrom(shared[name])
                again.output[0] = node.input[place] = f"{name}_{len(nodes)}_{place}"
                nodes.append(again)
            read.add(name)
        nodes.append(node)
    repeated = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(repeated)


def merge_quantizers(proto: onnx.ModelProto) -> None:
    """Quantize each value once on each grid, in place: not again by every reader, nor where it is on the grid."""
    graph = proto.graph
    constants = {constant.name: numpy_helper.to_array(constant).tobytes() for constant in graph.initializer}

    def grid(node: onnx.NodeProto) -> tuple[bytes | str, ...]:
        return tuple(constants.get(name, name) for name in node.input[1:])

    first: dict[tuple[object, ...], str] = {}  # the integers of a value, by value and grid
    values: dict[str, tuple[str, tuple[bytes | str, ...]]] = {}  # integers and grid of what DequantizeLinear computes
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants:
            values[node.output[0]] = (node.input[0], grid(node))
        if node.op_type == "QuantizeLinear":
            integers, known = values.get(node.input[0], ("", ()))
            integers = integers if known == grid(node) else ""
            key = (node.input[0], *grid(node))
            if integers or key in first:
                same[node.output[0]] = integers or first[key]
                continue
            first[key] = node.output[0]
        kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)
    drop_unread(graph)


def drop_quantizers(proto: onnx.ModelProto) -> None:
    """Remove every QuantizeLinear of a computed value with its DequantizeLinear, and unused constants, in place."""
    graph = proto.graph
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    passed = {
        node.output[0]: quantized[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    }
    kept = [node for node in graph.node if node.output[0] not in {*quantized, *passed}]
    for node in kept:
        node.input[:] = [_followed(name, passed) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)
    drop_unread(graph)


def _followed(name: str, passed: Mapping[str, str]) -> str:
    while name in passed:
        name = passed[name]
    return name
