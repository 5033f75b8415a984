#!/usr/bin/env bash
# LpPool with ceil_mode: at the border onnxruntime gives the norm of the pixels there are, onnx's reference and
# OpenVINO a larger one.
#
# Expected: one meaning. With p=2 a window of 2 x 2 ones has the norm 2, and the last window of a row of 5, in which 2
#   of 4 pixels are left, the norm sqrt(2).
# Happens: onnxruntime says sqrt(2) = 1.41. The reference and OpenVINO (as torch's LPPool2d) take the mean over the
#   pixels that are there times the size of the window: 2. In the corner it is 1 and 2. Inside and without ceil_mode
#   all agree.
# Hurts: networks with LP pooling on odd sizes: the border's features are up to twice as large in one runtime as in
#   another.
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
import onnx
import onnxruntime
import openvino
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
CORE = openvino.Core()


def model(op, feeds, constants=(), opset=20, **attributes):
    """Return a model of one node whose inputs are those fed and then the constants."""
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [helper.make_node(op, [*feeds, *(f"c{i}" for i in range(len(constants)))], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info(name, kind(value.dtype), value.shape) for name, value in feeds.items()],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, f"c{i}") for i, value in enumerate(constants)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def run(made, feeds):
    """Return the outputs of onnxruntime, of onnx's reference and of OpenVINO."""
    text = made.SerializeToString()
    compiled = CORE.compile_model(CORE.read_model(io.BytesIO(text)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [
        onnxruntime.InferenceSession(text).run(None, feeds)[0],
        ReferenceEvaluator(made).run(None, feeds)[0],
        compiled([feeds[port.any_name] for port in compiled.inputs])[0],
    ]

x = np.ones((1, 1, 5, 5), np.float32)
found = {}
for ceil in (0, 1):
    made = model("LpPool", {"x": x}, opset=22, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=ceil, p=2)
    found[ceil] = [np.round(y[0, 0].astype(float), 2).tolist() for y in run(made, {"x": x})]
    for name, rows in zip(("onnxruntime", "reference", "OpenVINO"), found[ceil]):
        print(f"ceil_mode={ceil} {name}:", rows)
root = 1.41
border = [[2.0, 2.0, root], [2.0, 2.0, root], [root, root, 1.0]]
same = [[2.0] * 3] * 3
sys.exit(0 if found[0] == [[[2.0] * 2] * 2] * 3 and found[1] == [border, same, same] else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
