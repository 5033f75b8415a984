#!/usr/bin/env bash
# OpenVINO cuts the bias of a local response normalization to a whole number: 1.5 counts as 1, and 0.5 as 0.
#
# Expected: LRN divides by (bias + alpha / size * sum of squares) ** beta with the bias of the file, which is a float.
# Happens: on the CPU in float32, results are those of floor(bias), exactly; with bias 0.5 the smallest inputs grow
#   without bound, since what should keep the divisor from zero is gone. Biases 1 and 2, of GoogLeNet and AlexNet, are
#   right.
# Hurts: networks with a bias that was tuned or that is small (0.5, 0.75), in one runtime of several.
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
x = np.array([0.01, 0.1, 0.5, 1, 2, 3], np.float32).reshape(1, 6, 1, 1)


def expected(bias):
    return x / (bias + 0.25 * x**2) ** 0.75


changed = []
for bias in (1.0, 2.0, 1.5, 0.5):
    graph = helper.make_graph(
        [helper.make_node("LRN", ["x"], ["y"], size=1, alpha=0.25, beta=0.75, bias=bias)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    compiled = CORE.compile_model(CORE.read_model(io.BytesIO(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = {
        "onnxruntime": onnxruntime.InferenceSession(model).run(None, {"x": x})[0],
        "openvino": compiled(x)[0],
    }
    for name, result in results.items():
        print(f"bias {bias} {name}:", np.round(result.ravel(), 3), "of", np.round(expected(bias).ravel(), 3))
        counted = np.floor(bias) if name == "openvino" else bias
        if not np.allclose(result, expected(counted), rtol=1e-3):
            changed.append((name, bias))
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
