#!/usr/bin/env bash
# onnx's ReferenceEvaluator fails on ConvTranspose with groups, and on a Pad with negative sizes, which crops.
#
# Expected: both are in the operators' definitions, and onnxruntime runs them.
# Happens: ValueError, "cannot reshape array of size 81 into shape (1,2,27)" and "index can't contain negative values".
# Hurts: who checks a runtime or an exporter against the reference: a decoder with depthwise upsampling cannot be checked.
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


def outcome(given, shape):
    x = rng.normal(size=shape).astype(np.float32)
    expected = run(given, x)
    try:
        return bool(np.allclose(ReferenceEvaluator(given).run(None, {"x": x})[0], expected, atol=1e-4))
    except ValueError as error:
        return str(error)


def transposed(groups):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=groups)
    return model([node], [tensor("w", rng.normal(size=(4, 6 // groups, 3, 3)))], [2, 4, 8, 8])


def padded(count):
    pads = tensor("pads", [0, 0, count, count, 0, 0, count, count], np.int64)
    return model([helper.make_node("Pad", ["x", "pads"], ["y"])], [pads], [2, 4, 8, 8])


found = [outcome(each, [2, 4, 8, 8]) for each in (transposed(1), transposed(2), padded(1), padded(-1))]
for name, each in zip(("1 group", "2 groups", "pads of 1", "pads of -1"), found, strict=True):
    print(f"{name}: {'as onnxruntime' if each is True else each}")
fails = "cannot reshape" in str(found[1]) and "negative" in str(found[3])
sys.exit(0 if found[0] is True and found[2] is True and fails else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
