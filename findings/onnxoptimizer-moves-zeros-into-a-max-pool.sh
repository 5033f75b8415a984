#!/usr/bin/env bash
# onnxoptimizer's fuse_pad_into_pool moves a Pad of zeros into MaxPool, whose own padding is no number at all.
#
# Expected: zeros around an image take part in a maximum; the padding of MaxPool never does (it is minus infinity). Only a
#   Pad of minus infinity could be moved. AveragePool divides by what it may count, so a pool with pads of its own differs.
# Happens: where all values are negative, the border was 0 and becomes negative. The pass is among the default ones.
# Hurts: networks with asymmetric or TensorFlow-like padding before a pool (ResNets that came through Keras), at borders.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 onnxoptimizer==0.4.2
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
import onnxoptimizer
onnxruntime.set_default_logger_severity(4)
print("onnxoptimizer", version("onnxoptimizer"))
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


def change(operator, pads, shift):
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node(operator, ["padded"], ["y"], kernel_shape=[3, 3], pads=pads),
    ]
    given = model(nodes, [tensor("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)], [1, 2, 8, 8])
    x = (rng.uniform(0, 1, [1, 2, 8, 8]) + shift).astype(np.float32)
    expected, got = run(given, x), run(onnxoptimizer.optimize(given, ["fuse_pad_into_pool"]), x)
    print(f"{operator}, pads {pads}, values in [{shift}, {shift + 1}]: changed by at most {np.abs(got - expected).max():.3f}")
    return np.abs(got - expected).max()


none, own = [0, 0, 0, 0], [1, 1, 1, 1]
found = [change("MaxPool", none, 0), change("MaxPool", none, -5), change("AveragePool", own, 0)]
sys.exit(0 if found[0] == 0 and found[1] > 1 and found[2] > 0.01 else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
