#!/usr/bin/env bash
# OpenVINO's QuantizeLinear rounds after the zero point is added, so with an odd one every half goes the other way.
#
# Expected: round(x / scale), halves to even, then plus the zero point, as ONNX defines it and onnxruntime computes it.
# Happens: round(x / scale + zero point). With zero point 3 the inputs 0.5, 1.5, 2.5 become 4, 4, 6 instead of 3, 5, 5;
#   with an even zero point all agree. Nothing else differs, so a test with zero point 0 or 128 sees nothing.
# Hurts: who compares integers of two runtimes bit by bit, and grids on which halves are common: scales that are powers of
#   two, averages of two integers, inputs that were pixels.
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
x = np.array([0.5, 1.5, 2.5, 3.5, 4.4, 4.6], np.float32)


def quantized(zero):
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, x.shape)],
        [numpy_helper.from_array(np.array(1, np.float32), "s"), numpy_helper.from_array(np.array(zero, np.uint8), "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    compiled = CORE.compile_model(CORE.read_model(io.BytesIO(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return onnxruntime.InferenceSession(model).run(None, {"x": x})[0].tolist(), compiled(x)[0].tolist()


for zero, agree in ((0, True), (128, True), (3, False), (127, False)):
    ort, ov = quantized(zero)
    print(f"zero point {zero}: onnxruntime {ort}, openvino {ov}")
    rounded = np.rint(x).astype(int) + zero, np.rint(x + zero).astype(int)
    if [ort, ov] != [each.tolist() for each in rounded] or (ort == ov) != agree:
        sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
