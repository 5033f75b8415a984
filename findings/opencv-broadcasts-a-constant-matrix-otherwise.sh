#!/usr/bin/env bash
# OpenCV 5: MatMul with a constant second factor whose batch is broadcast multiplies with the wrong matrices.
#
# Expected: shapes (2, 1, 1, 1) and (3, 1, 1) broadcast to (2, 3, 1, 1), every x times every matrix: 1 10 100 2 20 200.
# Happens: 1 1 10 2 2 20, in both engines, where the matrices are a constant; given as a second input, they are
#   multiplied as they should be. Nothing is raised, the shape is right.
# Hurts: attention and mixtures of experts with a learnt matrix per head or expert behind an unsqueezed input.
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

x = np.array([1, 2], np.float32).reshape(2, 1, 1, 1)
matrices = np.array([1, 10, 100], np.float32).reshape(3, 1, 1)
node = helper.make_node("MatMul", ["x", "w"], ["y"])
found = outputs([node], x, {"w": matrices})

ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in (("x", x), ("w", matrices))]
result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 1, 1])
model = helper.make_model(helper.make_graph([node], "g", ends, [result]), opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.save(model, sys.argv[1])
net = cv2.dnn.readNetFromONNX(sys.argv[1])
net.setInput(x, "x")
net.setInput(matrices, "w")
found["as inputs"] = net.forward().ravel().tolist()
for case, y in found.items():
    print(case, y)
right, wrong = [1, 10, 100, 2, 20, 200], [1, 1, 10, 2, 2, 20]
expected = {"onnxruntime": right, "NEW": wrong, "CLASSIC": wrong, "as inputs": right}
sys.exit(0 if found == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
