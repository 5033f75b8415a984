#!/usr/bin/env bash
# tract 0.23.9 runs GRU, LSTM and RNN layers of direction "reverse" forward.
#
# Expected: a layer that begins with the last step, as ONNX defines it, or an error.
# Happens: the outputs are those of the same layer with direction "forward", to the bit, and nothing is said.
#   Direction "bidirectional" is right, so the backward half exists.
# Hurts: networks that read a sequence from its end (CRNNs for text lines, models converted from Keras's go_backwards,
#   and tools that split a bidirectional layer into two): shapes fit, outputs are those of another network.
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


rng, changed = np.random.default_rng(0), []
x = rng.standard_normal((5, 2, 3)).astype(np.float32)
for operation, gates in (("GRU", 3), ("LSTM", 4), ("RNN", 1)):
    shapes = {"w": (1, 4 * gates, 3), "r": (1, 4 * gates, 4), "b": (1, 8 * gates)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    found = {}
    for direction in ("forward", "reverse"):
        node = helper.make_node(operation, ["x", *weights], ["y0", "y1"], hidden_size=4, direction=direction)
        model = build([node], {"x": x}, weights, outputs=2)
        found[direction] = [run(model, {"x": x})[1].ravel() for run in (ort_run, tract_run)]
    for number, library in enumerate(("onnxruntime", "tract")):
        forward, backward = found["forward"][number], found["reverse"][number]
        same = np.array_equal(forward, backward)
        print(f"{operation} in {library}: forward {forward[:3].round(3)}, reverse {backward[:3].round(3)}, same: {same}")
        if same != (library != "onnxruntime") or not np.allclose(forward, found["forward"][0], atol=1e-5):
            changed.append((operation, library))
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
