#!/usr/bin/env bash
# MNN 3.6.1 gives the values of a DynamicQuantizeLinear as signed bytes, 128 lower than the levels that ONNX defines.
#
# Expected: levels from 0 to 255 of type uint8: [-1, 0, 2] is [0, 85, 255] with the zero point 85.
# Happens: the zero point is -43, which is 85 - 128, while the levels come out as [0, 85, -1]: those of uint8, read as
#   int8. The two do not belong together: (level - zero point) * scale is not the input.
# Hurts: files of onnxruntime's quantize_dynamic and hand-written graphs that use the zero point in Sub or Cast. MNN
#   refuses the MatMulInteger and ConvInteger behind it, so that people rewrite just that part by hand, and get wrong
#   numbers.
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


x = np.array([-1, 0, 2], np.float32)
model = build([helper.make_node("DynamicQuantizeLinear", ["x"], ["y0", "y1", "y2"])], {"x": x}, outputs=3)
for name, run in (("onnxruntime", ort_run), ("MNN", mnn_run)):
    levels, scale, zero = (np.asarray(each, np.float64).ravel() for each in run(model, {"x": x}))
    print(f"{name}: levels {levels}, zero point {zero}, read back {((levels - zero) * scale).round(3)}")
    if name == "MNN" and (levels.tolist() != [0, 85, -1] or zero.tolist() != [-43]):
        sys.exit("the behaviour has changed")
    if name == "onnxruntime" and not np.allclose((levels - zero) * scale, x, atol=0.01):
        sys.exit("onnxruntime has changed")
PY
cd "$work"
status=0
venv/bin/python -W ignore check.py > log 2>&1 || status=$?
grep -v -E "device supports|Convert|ONNX Model|Optimize|putTensors|Check it out" log # the converter's own lines
exit "$status"
