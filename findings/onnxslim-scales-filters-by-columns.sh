#!/usr/bin/env bash
# onnxslim merges the multiplication of an image's columns into the filters of the convolution before, as if they were its
# channels.
#
# Expected: Conv, then Mul by a constant [1, 1, 1, 6]: each column of the result has its factor, which no filter can hold.
# Happens: if the convolution has as many filters as the result has columns, the six factors are taken for those of the
#   filters. The graph is valid, the shapes agree, the numbers do not. With [1, 6, 1, 1], the channels' form, all is right.
# Hurts: networks with windows, position weights or masks after a convolution whose width happens to be its filters' number.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 onnxslim==0.1.98 sympy==1.14.0
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
import onnxslim
onnxruntime.set_default_logger_severity(4)
print("onnxslim", version("onnxslim"))
rng = np.random.default_rng(0)


def tensor(name, values, kind=np.float32):
    return numpy_helper.from_array(np.asarray(values, kind), name)


def model(nodes, constants, shape, opset=17):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, None)], constants
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def run(given, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(given.SerializeToString(), options).run(None, {"x": x})[0]


def change(shape):
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["a"]), helper.make_node("Mul", ["a", "k"], ["y"])]
    constants = [tensor("w", rng.normal(size=(6, 4, 3, 3))), tensor("b", rng.normal(size=6))]
    given = model(nodes, [*constants, tensor("k", np.arange(1, 7).reshape(shape))], [1, 4, 8, 8])
    x = rng.normal(size=[1, 4, 8, 8]).astype(np.float32)
    slim = onnxslim.slim(given)
    change = np.abs(run(slim, x) - run(given, x)).max()
    print(f"factors {shape}: nodes {[node.op_type for node in slim.graph.node]}, changed by at most {change:.3f}")
    return change


channels, columns = change([1, 6, 1, 1]), change([1, 1, 1, 6])
sys.exit(0 if channels < 1e-3 and columns > 1 else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
