"""Means over the positions of images' channels, as the operator for which runtimes have kernels."""

import onnx
from onnx import helper, numpy_helper

IMAGES = 4  # axes of [N, C, H, W]


def pool_globally(proto: onnx.ModelProto) -> None:
    """Let GlobalAveragePool compute every mean of [N, C, H, W] over H and W that keeps its axes, in place.

    The exporter writes ReduceMean, which onnxruntime computes in float alone, and more slowly where channels lie last.
    """
    graph = proto.graph
    constants = {constant.name: constant for constant in graph.initializer}
    values = (*graph.value_info, *graph.input)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    for node in graph.node:
        if node.op_type != "ReduceMean" or ranks.get(node.input[0]) != IMAGES or len(node.input) < 2:
            continue
        kept = all(helper.get_attribute_value(each) == (each.name == "keepdims") for each in node.attribute)
        if kept and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]])
            if sorted(axes % IMAGES) == [2, 3]:
                node.op_type = "GlobalAveragePool"
                del node.input[1:], node.attribute[:]
