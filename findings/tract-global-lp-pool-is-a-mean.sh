#!/usr/bin/env bash
# tract 0.23.9 takes the mean of the powers in a GlobalLpPool, not their sum.
#
# Expected: (sum |x|^p)^(1/p) over each channel, as ONNX and onnxruntime have it.
# Happens: (mean |x|^p)^(1/p): for an image of 3 by 3 a ninth for p 1 and a third for p 2.
# Hurts: networks that pool by a norm (torch.nn.LPPool2d over the whole image): other outputs, that also depend on the
#   image's size otherwise than in training.
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


changed = []
for side in (2, 3):
    for p in (1, 2):
        x = np.arange(1, side * side + 1, dtype=np.float32).reshape(1, 1, side, side)
        model = build([helper.make_node("GlobalLpPool", ["x"], ["y0"], p=p)], {"x": x})
        right = float((x**p).sum() ** (1 / p))
        ours, theirs = (float(run(model, {"x": x})[0].item()) for run in (ort_run, tract_run))
        print(f"{side} by {side}, p {p}: right {right:.3f}, onnxruntime {ours:.3f}, tract {theirs:.3f}")
        if not (np.isclose(ours, right) and np.isclose(theirs, right / side ** (2 / p))):
            changed.append((side, p))
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
