#!/usr/bin/env bash
# OpenVINO adds, multiplies and shifts 8-bit integers with saturation, where onnxruntime and onnx's reference wrap around.
#
# Expected: uint8 arithmetic modulo 256, as in numpy, torch and the other two.
# Happens: 200 + 100 is 255 rather than 44, 2 - 4 is 0 rather than 254, 3 * 100 is 255 rather than 44, and 255 shifted
#   left by one bit is 255 rather than 254. Results that fit are the same, so tests with small numbers agree.
# Hurts: bit tricks in graphs: unpacking of four-bit weights by shifts, hashes, differences of bytes (delta coding),
#   checks of parity: all right in one runtime and silently wrong in the other.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import io
import sys

import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

print("onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
CORE = openvino.Core()
CASES = [
    ("Add", {}, [200, 1], [100, 2]),
    ("Sub", {}, [2, 4], [4, 2]),
    ("Mul", {}, [3, 3], [100, 5]),
    ("BitShift", {"direction": "LEFT"}, [255, 3], [1, 2]),
]
changed = []
for kind, attributes, *operands in CASES:
    a, b = (np.array(each, np.uint8) for each in operands)
    graph = helper.make_graph(
        [helper.make_node(kind, ["a", "b"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [2]) for name in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    data = model.SerializeToString()
    ort = onnxruntime.InferenceSession(data).run(None, {"a": a, "b": b})[0].tolist()
    reference = ReferenceEvaluator(model).run(None, {"a": a, "b": b})[0].tolist()
    ov = CORE.compile_model(CORE.read_model(io.BytesIO(data)), "CPU")({"a": a, "b": b})[0].tolist()
    print(f"{kind} of {operands}: onnxruntime {ort}, reference {reference}, openvino {ov}")
    if ort != reference or ov[1] != ort[1] or ov[0] != (0 if kind == "Sub" else 255) or ort[0] in (0, 255):
        changed.append(kind)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
