"""The operators that onnxruntime runs after it has fused and folded the graph of a model."""

from collections import Counter

import onnx
import onnxruntime

from kondense.scratch import scratch_directory

FLOAT_LAYERS = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
INTEGER_LAYERS = ("QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")


def count_kernels(content: bytes) -> dict[str, int]:
    """Return the number of times that each operator runs on the CPU, the most frequent first.

    Only fusions that are the same on every processor are applied (``ORT_ENABLE_EXTENDED``).
    """
    with scratch_directory("kernels") as scratch:
        path = scratch / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return dict(Counter(node.op_type for node in onnx.load(path).graph.node).most_common())
