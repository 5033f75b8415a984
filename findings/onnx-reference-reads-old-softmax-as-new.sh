#!/usr/bin/env bash
# onnx's ReferenceEvaluator computes Softmax of opset 12 and older as that of opset 13.
#
# Expected: up to opset 12, Softmax with axis=1 flattens [2, 4, 8] to [2, 32] and is normalised over all 32; since 13 over
#   the 4 of the axis alone. The reference should tell the two apart by the model's opset, as onnxruntime does.
# Happens: for both opsets the columns of the axis sum to 1.
# Hurts: who takes the reference as the judge of an older file, such as those of model zoos: the runtime looks wrong.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
onnxruntime.set_default_logger_severity(4)
print("onnx", version("onnx"))
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


x = rng.normal(size=(2, 4, 8)).astype(np.float32)
sums = {}
for opset in (12, 13):
    given = model([helper.make_node("Softmax", ["x"], ["y"], axis=1)], [], [2, 4, 8], opset)
    both = {"onnxruntime": run(given, x), "reference": ReferenceEvaluator(given).run(None, {"x": x})[0]}
    for name, y in both.items():
        sums[opset, name] = round(float(y[0].sum()), 3)
        print(f"opset {opset}, {name}: the outputs of an image sum to {sums[opset, name]}")
expected = {(12, "onnxruntime"): 1, (12, "reference"): 8, (13, "onnxruntime"): 8, (13, "reference"): 8}
sys.exit(0 if sums == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
