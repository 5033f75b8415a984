#!/usr/bin/env bash
# OpenCV 5: the output Y of a GRU holds the last step alone, without the axis of directions; an LSTM's clip is not heeded.
#
# Expected: Y of a GRU over 3 steps has the shape (3, 1, 1, 2), as the file itself says, with a state per step; an LSTM with
#   clip=0.3 limits what goes into its gates.
# Happens: the new engine returns (1, 1, 2), the last of the three states (the classic one refuses GRU); an LSTM with clip
#   computes what it computes without it, in both engines. LSTM without clip and Y_h are right.
# Hurts: speech and sensor networks with a head per step; a layer behind that broadcasts goes on with wrong numbers.
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
    return found


cv2.utils.logging.setLogLevel(0)
print("opencv", cv2.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)

rng = np.random.default_rng(0)
x = rng.standard_normal((3, 1, 2)).astype(np.float32)


def weights(gates):
    shapes = {"w": (1, 2 * gates, 2), "r": (1, 2 * gates, 2), "b": (1, 4 * gates)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


gru = outputs([helper.make_node("GRU", ["x", "w", "r", "b"], ["y"], hidden_size=2)], x, weights(3))
lstm = weights(4)
free, clipped = (
    outputs([helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=2, **clip)], x, lstm)
    for clip in ({}, {"clip": 0.3})
)
print("GRU:", *(f"{name} {None if y is None else y.shape}" for name, y in gru.items()))
for name in free:
    print("LSTM:", name, free[name].ravel().round(3), "with clip", clipped[name].ravel().round(3))
same = (
    gru["onnxruntime"].shape == (3, 1, 1, 2)
    and gru["NEW"].shape == (1, 1, 2)
    and np.allclose(gru["NEW"], gru["onnxruntime"][-1], atol=1e-5)
    and gru["CLASSIC"] is None
    and all(np.allclose(free[name], free["onnxruntime"], atol=1e-5) for name in free)
    and all(np.allclose(clipped[name], free["onnxruntime"], atol=1e-5) for name in ("NEW", "CLASSIC"))
    and not np.allclose(clipped["onnxruntime"], free["onnxruntime"], atol=1e-2)
)
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
