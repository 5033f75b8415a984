"""The storage of integer weights in an ONNX graph.

Shapes: weight [O, I, ...], scale [O] or [].
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def store_packed(proto: onnx.ModelProto) -> None:
    """Replace every DequantizeLinear of a constant by Cast and Mul, in place; use 4 bits where the integers fit.

    Runtimes fold Cast and Mul of constants while loading, but compute DequantizeLinear in every run. The values are
    the same: float(integer) * scale.
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
        if values.size and np.abs(values).max() <= 7:
            packed = pack_nibbles(values.ravel()).tobytes()
            integers.CopyFrom(helper.make_tensor(integers.name, TensorProto.INT4, values.shape, packed, raw=True))
        factors = numpy_helper.to_array(scale).reshape(-1, *[1] * (values.ndim - 1))
        scale.CopyFrom(numpy_helper.from_array(factors if factors.size > 1 else factors.reshape(()), scale.name))
        cast = f"{node.output[0]}_float"
        nodes.append(helper.make_node("Cast", [integers.name], [cast], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [cast, scale.name], list(node.output)))
    del graph.node[:]
    graph.node.extend(nodes)


def pack_nibbles(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return two 4-bit integers per byte, the first in the low half (onnx.proto, TensorProto.INT4)."""
    nibbles = values.astype(np.uint8) & 15
    if len(nibbles) % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    return np.bitwise_or(nibbles[::2], np.left_shift(nibbles[1::2], 4), dtype=np.uint8)


def separate_zero_points(proto: onnx.ModelProto) -> None:
    """Copy the zero points that several weights share, in place; the exporter merges equal constants.

    onnxruntime 1.32 refuses merged ones with "Attempt to replace the existing tensor" when
    ``session.x64quantprecision`` makes it rewrite int8 weights to uint8.
    """
    graph = proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    used = set()
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants or len(node.input) < 3:
            continue
        if node.input[2] in used:
            zero_point = graph.initializer.add()
            zero_point.CopyFrom(constants[node.input[2]])
            zero_point.name = f"{node.input[0]}_zero_point"
            node.input[2] = zero_point.name
        used.add(node.input[2])


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
    read = {name for node in kept for name in node.input}
    constants = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _followed(name: str, passed: Mapping[str, str]) -> str:
    while name in passed:
        name = passed[name]
    return name
