#!/usr/bin/env bash
# MNN 3.6.1 adds only the last of the updates that a ScatterElements with reduction "add" has for one place.
#
# Expected: all of them: 1 and 2 added to place 1 of zeros make 3, as torch.scatter_add does.
# Happens: 2. Places that occur once are right, so a test without repeated indices passes.
# Hurts: histograms, one-hot counts, pooling of tokens by cluster and graph networks: repeated indices are what "add"
#   is for.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 MNN==3.6.1
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import _tools
import MNN
import MNN.expr
import MNN.nn
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

print(*(f"{each} {version(each)}" for each in ("onnxruntime", "MNN")))


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


def mnn_run(model, feeds):
    onnx.save(model, "model.onnx")
    _tools.mnnconvert("mnnconvert -f ONNX --modelFile model.onnx --MNNModel model.mnn --bizCode none".split())
    names = [each.name for each in model.graph.input], [each.name for each in model.graph.output]
    net, given = MNN.nn.load_module_from_file("model.mnn", *names), []
    for name in names[0]:
        given.append(MNN.expr.placeholder(list(feeds[name].shape), MNN.expr.NCHW, MNN.expr.float))
        given[-1].write(feeds[name].reshape(-1).tolist())
    found = net.forward(given)
    found = [MNN.expr.convert(each, MNN.expr.NCHW) if len(each.shape) == 4 else each for each in found]
    return [np.array(each.read()) for each in found]


zeros, indices, updates = np.zeros((1, 4), np.float32), np.array([[1, 1, 3]]), np.array([[1, 2, 4]], np.float32)
node = helper.make_node("ScatterElements", ["x", "i", "u"], ["y0"], axis=1, reduction="add")
model = build([node], {"x": zeros, "u": updates}, {"i": indices})
ours, theirs = (run(model, {"x": zeros, "u": updates})[0].ravel().tolist() for run in (ort_run, mnn_run))
print(f"onnxruntime {ours}, MNN {theirs}")
if ours != [0, 3, 0, 4] or theirs != [0, 2, 0, 4]:
    sys.exit("the behaviour has changed")
PY
cd "$work"
status=0
venv/bin/python -W ignore check.py > log 2>&1 || status=$?
grep -v -E "device supports|Convert|ONNX Model|Optimize|putTensors|Check it out" log # the converter's own lines
exit "$status"
