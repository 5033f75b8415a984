#!/usr/bin/env bash
# tract 0.23.9 computes Softplus, ReduceLogSumExp and LogSoftmax by the bare exponential, which overflows float32
# above 88.
#
# Expected: log(sum(exp(x))) with the maximum taken out first, as every framework does: 102.4 for [100, 101, 102], 100
#   for the Softplus of 100, and -110 for the LogSoftmax of 0 beside 110.
# Happens: infinity, infinity and -infinity. Softmax itself is right.
# Hurts: energy scores (ReduceLogSumExp of logits), networks with Softplus or Mish written out, log-probabilities
#   summed over tokens: one unlikely class makes the sum -infinity. Logits above 88 are rare in float networks and
#   common in those that are trained with a temperature or that run in quantized units.
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


axes = {"axes": np.array([1])}
CASES = [  # operation, input, constants, attributes, right, tract's
    ("Softplus", [[50, 100, 200]], {}, {}, [50, 100, 200], [50, np.inf, np.inf]),
    ("ReduceLogSumExp", [[100, 101, 102]], axes, {}, [102.407606], [np.inf]),
    ("LogSoftmax", [[0, 50, 110]], {}, {"axis": 1}, [-110, -60, 0], [-np.inf, -60, 0]),
    ("Softmax", [[0, 50, 110]], {}, {"axis": 1}, [0, 0, 1], [0, 0, 1]),
]
changed = []
for operation, given, constants, attributes, right, tracts in CASES:
    x = np.array(given, np.float32)
    model = build([helper.make_node(operation, ["x", *constants], ["y0"], **attributes)], {"x": x}, constants)
    ours, theirs = (run(model, {"x": x})[0].ravel() for run in (ort_run, tract_run))
    print(f"{operation} of {given[0]}: onnxruntime {ours}, tract {theirs}")
    if not (np.allclose(ours, right, atol=1e-4) and np.allclose(theirs, tracts, atol=1e-4)):
        changed.append(operation)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
