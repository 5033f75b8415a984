#!/usr/bin/env bash
# onnx.version_converter of onnx 1.23.2 converts Softmax and LogSoftmax from opset 12 to 13 with care, and Hardmax
# without.
#
# Expected: up to opset 12 these three flatten everything from the axis on and work on the whole; from 13 on, on one
#   axis alone. A converter has to spell out the flattening, or keep the values otherwise.
# Happens: Softmax and LogSoftmax get a Flatten and a Reshape. Hardmax is left as it is, so that one 1 in each image
#   becomes one 1 in each column.
# Hurts: networks with hard attention, routing or argmax heads of opset 12 and before.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper, version_converter

print(*(f"{each} {version(each)}" for each in ("onnx", "onnxruntime")))


def build(nodes, inputs, constants=(), outputs=1, opset=21):
    """Return a model of the inputs and constants, arrays by name, with outputs y0, y1, ..."""
    info, kind = helper.make_tensor_value_info, helper.np_dtype_to_tensor_dtype
    given = [info(k, kind(v.dtype), v.shape) for k, v in inputs.items()]
    stored = [numpy_helper.from_array(v, k) for k, v in dict(constants).items()]
    asked = [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)]
    graph = helper.make_graph(nodes, "graph", given, asked, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def ort_run(model, feeds):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)



x, changed = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2), []
for operation, same in (("Softmax", True), ("LogSoftmax", True), ("Hardmax", False)):
    old = build([helper.make_node(operation, ["x"], ["y0"], axis=1)], {"x": x}, opset=12)
    new = version_converter.convert_version(old, 13)
    before, after = (ort_run(model, {"x": x})[0].ravel().astype(float).round(3) for model in (old, new))
    print(f"{operation}: {before.tolist()}; converted from 12 to 13: {after.tolist()}")
    if np.allclose(before, after, atol=1e-5) != same:
        changed.append(operation)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
