#!/usr/bin/env bash
# MNN 3.6.1 ignores nearest_mode in Resize, and takes other pixels than the border's where a cubic window leaves the
# image.
#
# Expected: nearest_mode "ceil" and "round_prefer_ceil" take the upper of two pixels at half the size: [1, 3] of [0,
#   1, 2, 3]. At a border a cubic window repeats the outermost pixel: the first of [0, 1, 2, 3] at twice the size is
#   -0.105.
# Happens: [0, 2] for every nearest_mode; 0.668 for the first pixel of the cubic one (the other end is right).
# Hurts: feature pyramids and segmentation heads: masks move by half a pixel; bicubic positional embeddings (ViTs at
#   another image size) are wrong in their first row and column.
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


x, changed = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4), []
CASES = [  # attributes, factor, first and last by ONNX, by MNN
    ({"mode": "nearest", "nearest_mode": "floor"}, 0.5, [0, 2], [0, 2]),
    ({"mode": "nearest", "nearest_mode": "ceil"}, 0.5, [1, 3], [0, 2]),
    ({"mode": "nearest", "nearest_mode": "round_prefer_ceil"}, 0.5, [1, 3], [0, 2]),
    ({"mode": "linear"}, 2, [0, 3], [0, 3]),
    ({"mode": "cubic"}, 2, [-0.10547, 3.10547], [0.66797, 3.10547]),
]
for attributes, factor, right, mnns in CASES:
    scales = np.array([1, 1, 1, factor], np.float32)
    model = build([helper.make_node("Resize", ["x", "", "s"], ["y0"], **attributes)], {"x": x}, {"s": scales})
    ours, theirs = (run(model, {"x": x})[0].ravel()[[0, -1]] for run in (ort_run, mnn_run))
    print(f"{' '.join(attributes.values())}: first and last in onnxruntime {ours.round(3)}, in MNN {theirs.round(3)}")
    if not (np.allclose(ours, right, atol=1e-4) and np.allclose(theirs, mnns, atol=1e-4)):
        changed.append(attributes)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
status=0
venv/bin/python -W ignore check.py > log 2>&1 || status=$?
grep -v -E "device supports|Convert|ONNX Model|Optimize|putTensors|Check it out" log # the converter's own lines
exit "$status"
