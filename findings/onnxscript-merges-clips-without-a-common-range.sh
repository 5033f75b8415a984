#!/usr/bin/env bash
# onnxscript's optimizer, which torch.onnx.export runs, merges two Clips whose ranges have nothing in common into a wrong one.
#
# Expected: Clip to [-1, -0.5], then Clip to [0, 1], is 0 everywhere: the second has the last word.
# Happens: one Clip to [max of the lows, min of the highs] = [0, -0.5], which is -0.5 everywhere: a value that the second
#   Clip cannot give. Ranges that overlap are merged well.
# Hurts: exports of networks in which an activation's range is followed by that of the next part (a log-scale, then a
#   probability); PyTorch and the exported file disagree, without a warning.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 onnxscript==0.7.2 onnx-ir==1.1.0
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxscript import optimizer
onnxruntime.set_default_logger_severity(4)
print("onnxscript", version("onnxscript"))
rng = np.random.default_rng(0)


def tensor(name, values, kind=np.float32):
    return numpy_helper.from_array(np.asarray(values, kind), name)


def model(nodes, constants, shape, opset=17):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, None)], constants
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def run(given, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(given.SerializeToString(), options).run(None, {"x": x})[0]


def outcome(first, second):
    bounds = dict(zip(("a", "b", "c", "d"), (*first, *second), strict=True))
    nodes = [helper.make_node("Clip", ["x", "a", "b"], ["t"]), helper.make_node("Clip", ["t", "c", "d"], ["y"])]
    given = model(nodes, [tensor(*bound) for bound in bounds.items()], [5])
    x = np.linspace(-2, 2, 5, dtype=np.float32)
    expected, got = run(given, x), run(optimizer.optimize(given), x)
    print(f"clipped to {first}, then {second}: {expected.tolist()}, optimized {got.tolist()}")
    return np.array_equal(expected, got), got.max()


overlapping, apart = outcome((-1.0, 0.5), (0.0, 1.0)), outcome((-1.0, -0.5), (0.0, 1.0))
sys.exit(0 if overlapping[0] and not apart[0] and apart[1] == -0.5 else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
