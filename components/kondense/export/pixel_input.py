"""Normalisation inside an ONNX graph, so that it takes pixels.

Shapes: images [N, C, H, W]; mean and std [C] -> factors [1, C, 1, 1].
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PIXELS = "images"


def take_pixels(proto: onnx.ModelProto, mean: Sequence[float], std: Sequence[float]) -> None:
    """Change the graph's input to uint8 and prepend (pixel / 255 - mean) / std, in place.

    Args:
        proto: a graph with one input, normalised float images.
        mean: per channel, of pixels scaled to [0, 1].
        std: per channel, of pixels scaled to [0, 1]; above 0.
    """
    graph = proto.graph
    (source,) = graph.input
    normalised = f"{source.name}_normalised"
    for node in graph.node:
        node.input[:] = [normalised if name == source.name else name for name in node.input]
    source.name = PIXELS
    source.type.tensor_type.elem_type = TensorProto.UINT8
    # In float64, then rounded once, as in Dataset.normalise.
    mean_C11, std_C11 = (np.array(values, np.float64).reshape(1, -1, 1, 1) for values in (mean, std))
    scale, shift = (1.0 / (255.0 * std_C11)).astype(np.float32), (-mean_C11 / std_C11).astype(np.float32)
    graph.initializer.extend(
        [numpy_helper.from_array(scale, "pixel_scale"), numpy_helper.from_array(shift, "pixel_shift")]
    )
    first = [
        helper.make_node("Cast", [PIXELS], ["pixels_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels_float", "pixel_scale"], ["pixels_scaled"]),
        helper.make_node("Add", ["pixels_scaled", "pixel_shift"], [normalised]),
    ]
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
