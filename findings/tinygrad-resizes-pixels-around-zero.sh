#!/usr/bin/env bash
# tinygrad's ONNX Resize of uint8 with mode "linear" wraps around: at a quarter of the way from 200 to 50 it finds
# 227.
#
# Expected: between two pixels lie the values between them: of 200 and 50 at twice the size 200, 162, 87, 50, as
#   onnxruntime has it.
# Happens: the difference of two neighbours is taken in eight bits, so an edge steeper than 127, falling or rising,
#   has the other sign, and what is interpolated goes away from both. Flatter edges are right, and so is float.
# Hurts: networks that take pixels and resize in the graph: every hard edge of a picture gets a bright or dark line;
#   the classes change, no error is raised.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tinygrad==0.14.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import os
import sys
import tempfile

os.environ["DEV"] = "PYTHON"
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from tinygrad import Tensor
from tinygrad.nn.onnx import OnnxRunner

print("onnxruntime", onnxruntime.__version__)


def twice(row, kind):
    """Return a row of pixels at twice its width, by onnxruntime and by tinygrad."""
    x = np.array(row, kind).reshape(1, 1, 1, -1)
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")],
        "g",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info("y", element, [1, 1, 1, 2 * len(row)])],
        [numpy_helper.from_array(np.array([1, 1, 1, 2], np.float32), "scales")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "resize.onnx")
        onnx.save(model, path)
        got = OnnxRunner(path)({"x": Tensor(x)})["y"].numpy()
    return expected.ravel().tolist(), got.ravel().tolist()


found = {}
for row in ((100, 200), (200, 50), (50, 200)):
    for kind in (np.float32, np.uint8):
        found[row, kind] = expected, got = twice(row, kind)
        print(f"{row} in {kind.__name__}: onnxruntime {expected}, tinygrad {got}")
apart = {key: max(abs(e - g) for e, g in zip(*both)) for key, both in found.items()}
steep = [apart.pop((row, np.uint8)) for row in ((200, 50), (50, 200))]
sys.exit(0 if max(apart.values()) <= 1 and min(steep) > 50 else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
