#!/usr/bin/env bash
# tract 0.23.9 cuts what output_shape takes off a transposed convolution from the end alone.
#
# Expected: where ConvTranspose gives output_shape and no auto_pad, ONNX cuts total - total // 2 at the beginning and
#   total // 2 at the end: [1, 1, 2, 2, 3, 3] cut to 5 is [1, 2, 2, 3, 3], and to 4 [1, 2, 2, 3].
# Happens: everything is cut at the end: [1, 1, 2, 2, 3] and [1, 1, 2, 2].
# Hurts: decoders (U-Nets, super-resolution) whose exporter writes output_shape: everything is moved by pixels, which
#   no check of shapes notices and which looks like a small loss of accuracy.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 tract==0.23.9
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import tract
from onnx import helper, numpy_helper

print(*(f"{each} {version(each)}" for each in ("onnxruntime", "tract")))


def build(nodes, inputs, constants=(), outputs=1, opset=21):
    """Return a model of the inputs and constants, arrays by name, with outputs y0, y1, ..."""
    info, kind = helper.make_tensor_value_info, helper.np_dtype_to_tensor_dtype
    given = [info(k, kind(v.dtype), v.shape) for k, v in inputs.items()]
    stored = [v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(v, k)
              for k, v in dict(constants).items()]
    asked = [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)]
    graph = helper.make_graph(nodes, "graph", given, asked, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def ort_run(model, feeds):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)


def tract_run(model, feeds):
    onnx.save(model, "model.onnx")
    runnable = tract.onnx().load("model.onnx").into_model().into_runnable()
    return [each.to_numpy() for each in runnable.run([feeds[each.name] for each in model.graph.input])]


x, filters, changed = np.array([[[[1, 2, 3]]]], np.float32), np.ones((1, 1, 1, 2), np.float32), []
for width, right, tracts in ((5, [1, 2, 2, 3, 3], [1, 1, 2, 2, 3]), (4, [1, 2, 2, 3], [1, 1, 2, 2])):
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y0"], strides=[1, 2], output_shape=[1, width])
    model = build([node], {"x": x}, {"w": filters})
    ours, theirs = (run(model, {"x": x})[0].ravel().tolist() for run in (ort_run, tract_run))
    print(f"[1, 2, 3] to a width of {width}: onnxruntime {ours}, tract {theirs}")
    if ours != right or theirs != tracts:
        changed.append(width)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
