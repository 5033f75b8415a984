#!/usr/bin/env bash
# onnx's reference evaluator divides LpNormalization with p=1 by the sum of the values, not of their magnitudes.
#
# Expected: the L1 norm, sum(|x|), as the operator's name and onnxruntime have it: magnitudes of the result add up to 1.
# Happens: [1, -3, 1] becomes [-1, 3, -1], since the sum is -1; [2, -1, -1], whose sum is 0, becomes zeros. Positive
#   inputs are right, and so is p=2.
# Hurts: who checks an export or an own kernel against the evaluator, or folds constants with it: embeddings and weights
#   have both signs.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, __version__, helper
from onnx.reference import ReferenceEvaluator

print("onnx", __version__, "onnxruntime", onnxruntime.__version__)
changed = []
for p, row, expected in ((1, [1, -3, 1], [-1, 3, -1]), (1, [2, -1, -1], None), (1, [1, 3, 1], [0.2, 0.6, 0.2])):
    x = np.array([row], np.float32)
    graph = helper.make_graph(
        [helper.make_node("LpNormalization", ["x"], ["y"], axis=-1, p=p)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ort = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0][0]
    reference = ReferenceEvaluator(model).run(None, {"x": x})[0][0]
    print(f"p={p} of {row}: onnxruntime {ort}, reference {reference}")
    wrong = expected or [0, 0, 0]
    if not np.allclose(reference, wrong) or not np.allclose(ort, x[0] / np.abs(x).sum()):
        changed.append(row)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
