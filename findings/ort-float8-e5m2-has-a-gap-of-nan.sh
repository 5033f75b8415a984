#!/usr/bin/env bash
# onnxruntime's Cast to float8e5m2 without saturation makes NaN of numbers just above the range, and infinity of larger
# ones.
#
# Expected: with saturate=0 what rounds above the largest number, 57344, is infinity: float8e5m2 has one, ONNX's table
#   says so, and onnx's reference and ml_dtypes give it.
# Happens: 61440 to 65535 and their negatives become NaN, 65536 and everything above infinity; below 61440 it is 57344
#   rightly.
# Hurts: who finds overflows by isinf(), or clips afterwards: a NaN passes both. Gradients are the values for which e5m2
#   is used, without saturation.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 ml_dtypes==0.6.0
cat > "$work/check.py" <<'PY'
import sys

import ml_dtypes
import numpy as np
import onnxruntime
from onnx import TensorProto, __version__, helper
from onnx.reference import ReferenceEvaluator

print("onnx", __version__, "onnxruntime", onnxruntime.__version__, "ml_dtypes", ml_dtypes.__version__)
x = np.array([50000, 57344, 61000, 61440, 65000, -65000, 65536, 1e6], np.float32)
nodes = [
    helper.make_node("Cast", ["x"], ["small"], to=TensorProto.FLOAT8E5M2, saturate=0),
    helper.make_node("Cast", ["small"], ["y"], to=TensorProto.FLOAT),
]
graph = helper.make_graph(
    nodes,
    "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
ort = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
reference = ReferenceEvaluator(model).run(None, {"x": x})[0]
other = x.astype(ml_dtypes.float8_e5m2).astype(np.float32)
for name, result in (("input", x), ("onnxruntime", ort), ("reference", reference), ("ml_dtypes", other)):
    print(f"{name:12}", result.tolist())
right, inf, nan = [49152, 57344, 57344], np.inf, np.nan
same = np.array_equal(ort, [*right, nan, nan, nan, inf, inf], equal_nan=True)
same = same and all(np.array_equal(each, [*right, inf, inf, -inf, inf, inf]) for each in (reference, other))
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
