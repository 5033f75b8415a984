#!/usr/bin/env bash
# OpenVINO's Cast to float8 does not saturate: 500 becomes NaN in float8e4m3fn where ONNX's default gives 448.
#
# Expected: `saturate` is 1 unless a file says otherwise, so what is out of range, infinity included, becomes the largest
#   finite number: 448 in e4m3fn, 57344 in e5m2. onnxruntime and onnx's reference do so.
# Happens: above 464 e4m3fn gives NaN, and above 61440 e5m2 gives infinity, attribute or not. Numbers in range are all
#   right, so a calibrated network works until the first activation above its range.
# Hurts: float8 networks, in which one outlier now makes the whole row NaN after a softmax or a normalization.
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
from onnx import TensorProto, helper

print("onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
CORE = openvino.Core()
x = np.array([100, 440, 500, 50000, 1e6, -1e6, np.inf], np.float32)
EXPECTED = {
    "FLOAT8E4M3FN": ([96, 448, 448, 448, 448, -448, 448], [96, 448, np.nan, np.nan, np.nan, np.nan, np.nan]),
    "FLOAT8E5M2": ([96, 448, 512, 49152, 57344, -57344, 57344], [96, 448, 512, 49152, np.inf, -np.inf, np.inf]),
}
changed = []
for name, (saturated, overflown) in EXPECTED.items():
    for attributes in ({}, {"saturate": 1}):
        nodes = [
            helper.make_node("Cast", ["x"], ["small"], to=getattr(TensorProto, name), **attributes),
            helper.make_node("Cast", ["small"], ["y"], to=TensorProto.FLOAT),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
        ort = onnxruntime.InferenceSession(model).run(None, {"x": x})[0]
        ov = CORE.compile_model(CORE.read_model(io.BytesIO(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
        print(f"{name} {attributes}: onnxruntime {ort.tolist()}, openvino {ov.tolist()}")
        if not (np.array_equal(ort, saturated) and np.array_equal(ov, overflown, equal_nan=True)):
            changed.append(name)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
