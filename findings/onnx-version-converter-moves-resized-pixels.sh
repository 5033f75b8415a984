#!/usr/bin/env bash
# onnx.version_converter of onnx 1.23.2 moves the pixels of a linear Upsample or Resize when it leaves opset 10.
#
# Expected: the same outputs. Up to opset 10 the pixel i of the output reads at i / scale ("asymmetric"); Resize 11
#   has an attribute for it, whose default is another ("half_pixel").
# Happens: the converter writes a Resize without the attribute: [0, 0.5, 1, 1] becomes [0, 0.25, 0.75, 1]. Mode
#   "nearest" is right by luck at factor 2. The checker is content.
# Hurts: segmentation networks and feature pyramids of older exporters (PyTorch up to 1.3, Keras and TensorFlow
#   converters at opset 9 and 10) that someone lifts to a newer opset to quantize them: everything moves by up to half
#   a pixel.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper, version_converter

print(*(f"{each} {version(each)}" for each in ("onnx", "onnxruntime")))


def build(nodes, inputs, constants=(), outputs=1, opset=21):
    """Return a model of the inputs and constants, arrays by name, with outputs y0, y1, ..."""
    info, kind = helper.make_tensor_value_info, helper.np_dtype_to_tensor_dtype
    given = [info(k, kind(v.dtype), v.shape) for k, v in inputs.items()]
    stored = [numpy_helper.from_array(v, k) for k, v in dict(constants).items()]
    asked = [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)]
    graph = helper.make_graph(nodes, "graph", given, asked, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def ort_run(model, feeds):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)



x, scales, changed = np.array([[[[0, 1]]]], np.float32), np.array([1, 1, 1, 2], np.float32), []
for operation, opset in (("Upsample", 9), ("Resize", 10)):
    node = helper.make_node(operation, ["x", "s"], ["y0"], mode="linear")
    old = build([node], {"x": x}, {"s": scales}, opset=opset)
    new = version_converter.convert_version(old, 21)
    onnx.checker.check_model(new, full_check=True)
    before, after = (ort_run(model, {"x": x})[0].ravel().tolist() for model in (old, new))
    print(f"{operation} of opset {opset}: {before}; converted to 21: {after}")
    if before != [0, 0.5, 1, 1] or after != [0, 0.25, 0.75, 1]:
        changed.append(operation)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
