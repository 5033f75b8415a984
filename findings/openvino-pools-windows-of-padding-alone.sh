#!/usr/bin/env bash
# OpenVINO keeps pooling windows that lie in the padding alone: with ceil_mode a MaxPool has a last row of -3.4e38.
#
# Expected: for 5 x 5 pixels, kernel 2, stride 3, padding 1 and ceil_mode, an output of 2 x 2, as in torch, onnx's shape
#   inference and onnxruntime: a window that begins in the padding behind the image does not count.
# Happens: OpenVINO gives 3 x 3, and what no pixel is under is -3.4028235e+38, the lowest float, which a later layer turns
#   into infinities or NaN. For windows that have a pixel all agree.
# Hurts: networks with nn.MaxPool2d(2, 3, padding=1, ceil_mode=True) or (3, 3, 1): another shape for the classifier
#   behind, or, with global pooling, silently ruined means.
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
from onnx import TensorProto, helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
CORE = openvino.Core()
LOWEST = np.finfo(np.float32).min
changed = False
for size, kernel, stride, alone in ((5, 2, 3, True), (5, 3, 3, True), (5, 2, 2, True), (6, 3, 2, False)):
    x = np.random.default_rng(0).normal(size=(1, 1, size, size)).astype(np.float32)
    node = helper.make_node(
        "MaxPool", ["x"], ["y"], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[1] * 4, ceil_mode=1
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
    model = model.SerializeToString()
    ort = onnxruntime.InferenceSession(model).run(None, {"x": x})[0]
    ov = CORE.compile_model(CORE.read_model(io.BytesIO(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    shapes = [each.dim_value for each in inferred.dim], list(ort.shape), list(ov.shape)
    print(f"size {size} kernel {kernel} stride {stride}: inferred, onnxruntime, openvino {shapes}, lowest {ov.min():.3g}")
    changed |= shapes[0] != shapes[1] or (shapes[2] != shapes[1]) != alone or (ov.min() == LOWEST) != alone
    changed |= not np.array_equal(ov[..., : ort.shape[2], : ort.shape[3]], ort)
sys.exit("the behaviour has changed" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
