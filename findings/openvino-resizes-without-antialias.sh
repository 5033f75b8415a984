#!/usr/bin/env bash
# OpenVINO reads an ONNX Resize with `antialias=1` or `exclude_outside=1` as if the attribute were not there.
#
# Expected: the averages that antialias asks for (onnxruntime and onnx's reference agree on them), or an error at reading.
# Happens: the model converts and runs, and the numbers are those of antialias=0 exactly, for linear and cubic; a cubic
#   with exclude_outside=1 likewise equals the one without. The more it shrinks, the fewer pixels count.
# Hurts: networks whose preprocessing is in the graph (torch's interpolate(antialias=True) is exported so): inputs of
#   another distribution, a loss of accuracy on this runtime alone.
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
from onnx import TensorProto, helper, numpy_helper

print("onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
CORE = openvino.Core()
x = np.random.default_rng(0).normal(size=(1, 1, 12, 12)).astype(np.float32)


def both(**attributes):
    """Return what onnxruntime and OpenVINO make of 0.4 times the size."""
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "s"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 1, 0.4, 0.4], np.float32), "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    compiled = CORE.compile_model(CORE.read_model(io.BytesIO(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return onnxruntime.InferenceSession(model).run(None, {"x": x})[0], compiled(x)[0]


changed = []
for mode, attribute in (("linear", "antialias"), ("cubic", "antialias"), ("cubic", "exclude_outside")):
    plain, with_attribute = both(mode=mode), both(mode=mode, **{attribute: 1})
    agrees = np.allclose(*plain, atol=1e-4)
    ignored = np.allclose(plain[1], with_attribute[1], atol=1e-6)
    difference = np.abs(with_attribute[0] - with_attribute[1]).max()
    print(f"{mode}: both agree without: {agrees}; {attribute}=1 is ignored: {ignored}, apart by at most {difference:.2f}")
    if not (agrees and ignored and difference > 0.02):
        changed.append(f"{mode} {attribute}")
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
