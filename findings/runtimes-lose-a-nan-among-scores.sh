#!/usr/bin/env bash
# A NaN among scores: OpenVINO's TopK returns a wrong second best, and onnxruntime's ReduceMax keeps a NaN only in first
# place.
#
# Expected: a NaN is kept wherever it stands (as in torch and numpy), or left out wherever it stands; what is returned
#   besides it is in the right order.
# Happens: of [1, NaN, 3, 0] OpenVINO's TopK of two is [1, NaN]: the 3, the largest number, is not among them.
#   onnxruntime's ReduceMax of the same row is 3, and NaN of [NaN, 1, 3, 0]; its TopK puts the NaN first in both rows.
# Hurts: guards of the kind "stop if the largest activation is NaN", and detectors that take the best k: one bad score
#   hides the good ones behind it, by its place in the row.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import io
import sys

import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
CORE = openvino.Core()
ROWS = np.array([[1, np.nan, 3, 0], [np.nan, 1, 3, 0]], np.float32)


def both(kind, constant, outputs, **attributes):
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "k"], outputs, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ROWS.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([constant], np.int64), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    compiled = CORE.compile_model(CORE.read_model(io.BytesIO(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return onnxruntime.InferenceSession(model).run(None, {"x": ROWS})[0], compiled(ROWS)[0]


nan = np.nan
best = both("TopK", 2, ["y", "i"], axis=1)
largest = both("ReduceMax", 1, ["y"], keepdims=0)
for row in (0, 1):
    for at, name in enumerate(("onnxruntime", "openvino")):
        print(f"{ROWS[row]} {name}: two best {best[at][row]}, largest {largest[at][row]}")
same = np.array_equal(best[0], [[nan, 3], [nan, 3]], equal_nan=True) and np.array_equal(best[1][0], [1, nan], equal_nan=True)
same = same and np.array_equal(largest[0], [3, nan], equal_nan=True)
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
