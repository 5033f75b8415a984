#!/usr/bin/env bash
# OpenCV 5 reads auto_pad SAME_UPPER and SAME_LOWER as one, and which of the two depends on the engine.
#
# Expected: as ONNX says. A convolution of kernel 3 and stride 2 over 8 pixels needs one pixel of padding, which SAME_UPPER
#   puts at the end and SAME_LOWER at the beginning; so does MaxPool.
# Happens: the new engine, which is the default, puts it at the beginning for both; with a kernel of 2 and stride 1 it
#   puts it at the end for both: (kernel - 1) / 2 pixels come first, always. The classic engine puts it at the end in all
#   of these.
# Hurts: who serves networks that come from TensorFlow or Keras, whose strided layers all say SAME_UPPER: a MobileNet's
#   every downsampling is moved by a pixel on even sizes, which costs accuracy and raises nothing.
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

x = np.arange(1, 9, dtype=np.float32).reshape(1, 1, 1, 8)
kernel = np.array([1, 10, 100], np.float32).reshape(1, 1, 1, 3)
found = {}
for ends in ("SAME_UPPER", "SAME_LOWER"):
    strided = helper.make_node("Conv", ["x", "w"], ["y"], strides=[1, 2], auto_pad=ends)
    found["kernel 3, stride 2", ends] = outputs([strided], x, {"w": kernel})
    even = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=ends)
    found["kernel 2, stride 1", ends] = outputs([even], x, {"w": kernel[..., :2].copy()})
pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 3], strides=[1, 2], auto_pad="SAME_UPPER")
found["max of 3, stride 2", "SAME_UPPER"] = outputs([pool], x, {})
for case, ys in found.items():
    print(*case, *(f"{name} {y}" for name, y in ys.items()), sep="\n  ")
upper, lower = [321, 543, 765, 87], [210, 432, 654, 876]
behind, before = [21, 32, 43, 54, 65, 76, 87, 8], [10, 21, 32, 43, 54, 65, 76, 87]
expected = {
    ("kernel 3, stride 2", "SAME_UPPER"): (upper, lower, upper),
    ("kernel 2, stride 1", "SAME_UPPER"): (behind, behind, behind),
    ("kernel 3, stride 2", "SAME_LOWER"): (lower, lower, upper),
    ("kernel 2, stride 1", "SAME_LOWER"): (before, behind, behind),
    ("max of 3, stride 2", "SAME_UPPER"): ([3, 5, 7, 8], [2, 4, 6, 8], [3, 5, 7, 8]),
}
same = all(tuple(found[case].values()) == ys for case, ys in expected.items())
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
