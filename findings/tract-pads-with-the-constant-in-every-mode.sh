#!/usr/bin/env bash
# tract 0.23.9 pads with the constant where a Pad of mode edge or reflect has one.
#
# Expected: ONNX reads the constant in mode "constant" only, and exporters leave it in: a row [1, 2, 3] padded by one
#   is [1, 1, 2, 3, 3] (edge) and [2, 1, 2, 3, 2] (reflect), with a constant or without.
# Happens: with a third input, tract takes the mode for "constant" without a word: [7, 1, 2, 3, 7] for a constant of
#   7. Without it, both modes are right.
# Hurts: networks with reflection padding (style transfer, super-resolution, audio), whose borders become wrong only
#   where the exporter wrote the unused constant.
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


row, pads, changed = np.array([[1, 2, 3]], np.float32), np.array([0, 1, 0, 1]), []
for mode, right in (("edge", [1, 1, 2, 3, 3]), ("reflect", [2, 1, 2, 3, 2])):
    for constant, tracts in ((None, right), (7.0, [7, 1, 2, 3, 7])):
        extra = {} if constant is None else {"c": np.float32(constant)}
        node = helper.make_node("Pad", ["x", "pads", *extra], ["y0"], mode=mode)
        model = build([node], {"x": row}, {"pads": pads, **extra})
        ours, theirs = (run(model, {"x": row})[0].ravel().tolist() for run in (ort_run, tract_run))
        print(f"{mode}, constant {constant}: onnxruntime {ours}, tract {theirs}")
        if ours != right or theirs != tracts:
            changed.append((mode, constant))
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
