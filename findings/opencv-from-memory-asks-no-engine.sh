#!/usr/bin/env bash
# OpenCV 5: readNetFromONNX with engine=ENGINE_CLASSIC takes the new engine where the file comes from memory.
#
# Expected: the argument chooses the engine for a path and for a buffer alike; the two engines differ (see
#   opencv-pads-same-without-asking-which-end.sh), so one tells from the outputs which of them ran.
# Happens: from a path the classic engine answers, from a buffer of the same bytes the new one, whose outputs differ.
# Hurts: who keeps the classic engine for a network that the new one computes otherwise or cannot run, and loads the file
#   from a package, a store or an encrypted archive.
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

x = np.arange(1, 9, dtype=np.float32).reshape(1, 1, 1, 8)
kernel = numpy_helper.from_array(np.array([1, 10, 100], np.float32).reshape(1, 1, 1, 3), "w")
node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[1, 2], auto_pad="SAME_UPPER")
ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x.shape), ("y", [1, 1, 1, 4]))]
graph = helper.make_graph([node], "g", ends[:1], ends[1:], [kernel])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])
cv2.utils.logging.setLogLevel(0)
print("opencv", cv2.__version__, "onnx", onnx.__version__)


def outputs(source, engine):
    net = cv2.dnn.readNetFromONNX(source, engine=engine)
    net.setInput(x)
    return net.forward().ravel().astype(int).tolist()


memory = np.frombuffer(model.SerializeToString(), np.uint8)
found = {
    "path, classic": outputs(sys.argv[1], cv2.dnn.ENGINE_CLASSIC),
    "memory, classic": outputs(memory, cv2.dnn.ENGINE_CLASSIC),
    "path, new": outputs(sys.argv[1], cv2.dnn.ENGINE_NEW),
    "memory, new": outputs(memory, cv2.dnn.ENGINE_NEW),
}
for case, y in found.items():
    print(case, y)
classic, new = [321, 543, 765, 87], [210, 432, 654, 876]
sys.exit(0 if list(found.values()) == [classic, new, new, new] else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
