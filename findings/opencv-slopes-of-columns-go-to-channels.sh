#!/usr/bin/env bash
# OpenCV 5: PRelu with a slope per column takes it for a slope per channel.
#
# Expected: the slope broadcasts from the last axis, as ONNX says: shape (3) over (1, 2, 1, 3) is a slope per column, so that
#   minus ones become -1 -2 -3 in both channels.
# Happens: -1 -1 -1 in the first channel and -2 -2 -2 in the second, in both engines; the third slope is not used.
# Hurts: networks over tokens or spectra whose PRelu acts on the last axis; from PyTorch, a PReLU behind a Linear layer that
#   keeps more than two axes, once the exporter has dropped the axes of size one.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def outputs(nodes, x, constants, opset=17):
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    ]
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *ends, kept), opset_imports=[helper.make_opsetid("", opset)]
    )
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    found = {"onnxruntime": session.run(None, {"x": x})[0]}
    for name in ("NEW", "CLASSIC"):
        try:
            net = cv2.dnn.readNetFromONNX(sys.argv[1], engine=getattr(cv2.dnn, f"ENGINE_{name}"))
            net.setInput(x)
            found[name] = net.forward().copy()
        except cv2.error:
            found[name] = None
    return {name: None if y is None else np.round(y, 4).ravel().tolist() for name, y in found.items()}


cv2.utils.logging.setLogLevel(0)
print("opencv", cv2.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)

found = outputs(
    [helper.make_node("PRelu", ["x", "slope"], ["y"])],
    -np.ones((1, 2, 1, 3), np.float32),
    {"slope": np.array([1, 2, 3], np.float32)},
)
for name, y in found.items():
    print(name, y)
columns, channels = [-1, -2, -3] * 2, [-1] * 3 + [-2] * 3
expected = {"onnxruntime": columns, "NEW": channels, "CLASSIC": channels}
sys.exit(0 if found == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
