#!/usr/bin/env bash
# tract 0.23.9 computes Celu without the factor alpha in front of the exponential.
#
# Expected: max(0, x) + min(0, alpha * (exp(x / alpha) - 1)), as torch.nn.CELU and ONNX have it.
# Happens: the negative side is exp(x / alpha) - 1: half of what it should be for alpha 2, twice for 0.5. For alpha 1,
#   the only value that most tests try, nothing is wrong.
# Hurts: networks with torch.nn.CELU(alpha): other outputs, no error.
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


x, changed = np.array([-3, -1, -0.25, 0.5], np.float32), []
for alpha in (0.5, 1.0, 2.0):
    model = build([helper.make_node("Celu", ["x"], ["y0"], alpha=alpha)], {"x": x})
    right = np.maximum(0, x) + np.minimum(0, alpha * (np.exp(x / alpha) - 1))
    ours, theirs = (run(model, {"x": x})[0] for run in (ort_run, tract_run))
    print(f"alpha {alpha}: right {right.round(3)}, onnxruntime {ours.round(3)}, tract {theirs.round(3)}")
    without = np.where(x < 0, np.exp(x / alpha) - 1, x)
    if not (np.allclose(ours, right, atol=1e-5) and np.allclose(theirs, without, atol=1e-5)):
        changed.append(alpha)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
