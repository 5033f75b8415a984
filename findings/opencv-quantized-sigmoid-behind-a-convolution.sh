#!/usr/bin/env bash
# OpenCV 5: an int8 Sigmoid behind an int8 convolution is another function in the new engine, which is the default.
#
# Expected: a convolution and a Sigmoid that onnxruntime's quantize_static wrote (QDQ, scale of the output 1/255) give
#   what they give in onnxruntime: values between 0 and 1.
# Happens: the new engine, and ENGINE_AUTO with it, gives all pixels whose sum is negative the smallest value, and what is above
#   it as if its sum were 128 steps lower; nothing is raised. The classic engine agrees with onnxruntime, and the new one does
#   for Tanh and HardSigmoid.
# Hurts: quantized detectors, gates and masks that end in a Sigmoid: hardly an object is found, and no error says why.
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
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

rng = np.random.default_rng(0)
x = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)


class Images(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": x}])

    def get_next(self):
        return next(self.batches, None)


def largest(activation):
    weights = numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32) / 5, "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node(activation, ["c"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 8, 8]) for n, c in (("x", 3), ("y", 4))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    quantize_static(
        model,
        sys.argv[1],
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    found = []
    for name in ("AUTO", "NEW", "CLASSIC"):
        net = cv2.dnn.readNetFromONNX(sys.argv[1], engine=getattr(cv2.dnn, f"ENGINE_{name}"))
        net.setInput(x)
        y = net.forward()
        one = np.unique(y[expected < 0.45]).size == 1 and y.max() < expected.max() - 0.2
        found.append("right" if np.abs(y - expected).max() < 0.01 else "no negative sums" if one else "wrong")
    return found


cv2.utils.logging.setLogLevel(0)
print("opencv", cv2.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
found = {activation: largest(activation) for activation in ("Sigmoid", "Tanh", "HardSigmoid")}
for activation, answers in found.items():
    print(activation, *(f"{name}: {answer}" for name, answer in zip(("AUTO", "NEW", "CLASSIC"), answers)))
right = ["right"] * 3
expected = {"Sigmoid": ["no negative sums", "no negative sums", "right"], "Tanh": right, "HardSigmoid": right}
sys.exit(0 if found == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
