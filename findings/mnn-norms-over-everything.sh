#!/usr/bin/env bash
# MNN 3.6.1 reduces ReduceL1, ReduceL2, ReduceSumSquare and others over all axes where the axes are an input.
#
# Expected: since opset 18 (13 for ReduceSum) the axes are an input, and what is reduced did not change.
# Happens: ReduceL1, ReduceL2, ReduceSumSquare, ReduceLogSum and ReduceLogSumExp ignore the input and give one number
#   for the whole tensor. ReduceMean, ReduceMax and ReduceSum read it, and all are right with the attribute of opset
#   17.
# Hurts: torch.nn.functional.normalize, which torch exports as ReduceL2 in opset 18: embeddings, cosine classifiers
#   and retrieval networks are divided by the norm of the whole batch. At batch 1 in front of a classifier nothing
#   shows.
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


x, axes, changed = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1]), []
WRONG = ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
for operation in (*WRONG, "ReduceMean", "ReduceMax"):
    old = build([helper.make_node(operation, ["x"], ["y0"], axes=[1])], {"x": x}, opset=17)
    new = build([helper.make_node(operation, ["x", "axes"], ["y0"])], {"x": x}, {"axes": axes}, opset=18)
    right = ort_run(new, {"x": x})[0].ravel()
    first, second = (mnn_run(model, {"x": x})[0].ravel() for model in (old, new))
    print(f"{operation}: onnxruntime {right.round(3)}, MNN at opset 17 {first.round(3)}, at 18 {second.round(3)}")
    if not np.allclose(first, right, atol=1e-4) or (second.size == 1) != (operation in WRONG):
        changed.append(operation)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
status=0
venv/bin/python -W ignore check.py > log 2>&1 || status=$?
grep -v -E "device supports|Convert|ONNX Model|Optimize|putTensors|Check it out" log # the converter's own lines
exit "$status"
