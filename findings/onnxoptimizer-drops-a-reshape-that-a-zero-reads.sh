#!/usr/bin/env bash
# onnxoptimizer drops the first of two Reshapes although the second copies a size of its result.
#
# Expected: 0 in a Reshape's shape means "as many as the input has there", so of Reshape [8, -1] and then [0, 2, -1] the
#   first decides the 8; without it the 0 reads the size before.
# Happens: the first is dropped, and [2, 4, 8] becomes [2, 2, 16] where it was [8, 2, 4]. No error in the optimizer.
# Hurts: attention in which batch and heads are put together and taken apart; the next layer fails, or broadcasts.
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


nodes = [helper.make_node("Reshape", ["x", "s"], ["a"]), helper.make_node("Reshape", ["a", "t"], ["y"])]
x = np.arange(64, dtype=np.float32).reshape(2, 4, 8)
shapes = {}
for last in ([0, 2, -1], [8, 2, -1]):
    given = model(nodes, [tensor("s", [8, -1], np.int64), tensor("t", last, np.int64)], [2, 4, 8])
    better = onnxoptimizer.optimize(given, onnxoptimizer.get_fuse_and_elimination_passes())
    shapes[last[0]] = [list(run(each, x).shape) for each in (given, better)]
    print(f"[8, -1], then {last}: {shapes[last[0]][0]}, optimized {shapes[last[0]][1]}")
sys.exit(0 if shapes == {0: [[8, 2, 4], [2, 2, 16]], 8: [[8, 2, 4]] * 2} else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
