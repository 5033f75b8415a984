#!/usr/bin/env bash
# onnx's reference evaluator: GridSample with mode "cubic" and padding "border" moves the sampling point into the
# image before it takes its neighbours.
#
# Expected: as torch and onnxruntime do it: the point stays where it is, and each of its 16 neighbours that lies
#   outside is replaced by the border's pixel.
# Happens: the point itself is moved to the border first, so its fractions, and with them the weights, are others: up
#   to a third of the values' spread apart. "zeros" and "reflection", and points inside the image, agree.
# Hurts: who checks a spatial transformer or an optical-flow network against the evaluator: the right runtime looks
#   wrong.
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

rng = np.random.default_rng(0)
image = rng.normal(size=(1, 1, 4, 4)).astype(np.float32)
found = {}
for padding in ("zeros", "reflection", "border"):
    for reach in (0.4, 1.3):
        feeds = {"x": image, "grid": rng.uniform(-reach, reach, (1, 8, 8, 2)).astype(np.float32)}
        made = model("GridSample", feeds, opset=20, mode="cubic", padding_mode=padding, align_corners=0)
        right = onnxruntime.InferenceSession(made.SerializeToString()).run(None, feeds)[0]
        found[padding, reach] = float(np.abs(ReferenceEvaluator(made).run(None, feeds)[0] - right).max())
        print(f"{padding}, grid within {reach}: apart by at most {found[padding, reach]:.6f}")
apart = [key for key, value in found.items() if value > 1e-4]
sys.exit(0 if apart == [("border", 1.3)] and found["border", 1.3] > 0.1 else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
