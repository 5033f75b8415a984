#!/usr/bin/env bash
# onnxruntime's pooling with auto_pad SAME_UPPER or SAME_LOWER pads as if there were no dilations, so the output is
# smaller.
#
# Expected: with stride 1 "same" means that the output has the size of the input, which onnx's shape inference and its
#   reference say too: 7 for 7 pixels, kernel 3 and dilations 2.
# Happens: MaxPool, AveragePool and LpPool give 5. Since the file says 7, onnxruntime logs a warning that the shapes
#   differ, and goes on with another part of the picture; a network that ends in a global pooling runs and is wrong. Conv
#   refuses the combination.
# Hurts: networks with dilated pooling converted from frameworks that write SAME.
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
from onnx import TensorProto, helper

onnxruntime.set_default_logger_severity(4)
print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
x = np.random.default_rng(0).normal(size=(1, 1, 7, 7)).astype(np.float32)
changed = []
for kind in ("MaxPool", "AveragePool", "LpPool"):
    for pad in ("SAME_UPPER", "SAME_LOWER"):
        node = helper.make_node(kind, ["x"], ["y"], kernel_shape=[3, 3], dilations=[2, 2], auto_pad=pad)
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        inferred = onnx.shape_inference.infer_shapes(model).graph.output[0].type.tensor_type.shape
        inferred = [each.dim_value for each in inferred.dim]
        given = list(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].shape)
        print(f"{kind} {pad}: inferred {inferred}, given {given}")
        if inferred != [1, 1, 7, 7] or given != [1, 1, 5, 5]:
            changed.append(f"{kind} {pad}")
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
