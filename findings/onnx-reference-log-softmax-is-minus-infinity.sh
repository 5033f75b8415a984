#!/usr/bin/env bash
# onnx's reference evaluator computes LogSoftmax as the logarithm of Softmax: below -104 it is minus infinity.
#
# Expected: log_softmax of [0, -200] is [0, -200]; that it stays exact where softmax is 0 is what the operator is for.
# Happens: [0, -inf], and -99.98 for -100. SoftmaxCrossEntropyLoss of the same logits is infinite instead of 200.
#   onnxruntime and torch give the numbers.
# Hurts: who checks losses or beam scores against the evaluator, or folds constants with it: one confident mistake
#   makes the mean of a batch infinite.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)


def model(op, feeds, constants=(), opset=20, **attributes):
    """Return a model of one node whose inputs are those fed and then the constants."""
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [helper.make_node(op, [*feeds, *(f"c{i}" for i in range(len(constants)))], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info(name, kind(value.dtype), value.shape) for name, value in feeds.items()],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, f"c{i}") for i, value in enumerate(constants)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)

x = np.array([[0, -100], [0, -200]], np.float32)
made = model("LogSoftmax", {"x": x}, axis=-1)
right, got = onnxruntime.InferenceSession(made.SerializeToString()), ReferenceEvaluator(made).run(None, {"x": x})[0]
right = right.run(None, {"x": x})[0]
print("onnxruntime", right.tolist(), "reference", got.tolist())
feeds = {"x": x[1:], "label": np.array([1])}
made = model("SoftmaxCrossEntropyLoss", feeds, opset=13)
losses = [float(onnxruntime.InferenceSession(made.SerializeToString()).run(None, feeds)[0])]
losses.append(float(ReferenceEvaluator(made).run(None, feeds)[0]))
print("SoftmaxCrossEntropyLoss: onnxruntime, reference:", losses)
odd = right.tolist() == x.tolist() and got[1, 1] == -np.inf and 0.01 < got[0, 1] + 100 < 0.03
sys.exit(0 if odd and losses == [200.0, float("inf")] else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
