#!/usr/bin/env bash
# OpenVINO: ReduceL1, ReduceL2 and ReduceLogSum without axes and with noop_with_empty_axes=1 return their input as it
# is.
#
# Expected: "no axes" then means that nothing is summed, and each number is reduced alone: |x|, sqrt(x * x) and
#   log(x), as onnxruntime and onnx's reference compute it.
# Happens: -2 stays -2 where it is 2, and the logarithm is left out altogether: 3 stays 3. ReduceSumSquare squares,
#   rightly.
# Hurts: exporters that write a norm over a list of axes which is empty for some layers: distances become negative in
#   this runtime alone, a log-likelihood becomes a likelihood.
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
import onnx
import onnxruntime
import openvino
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "openvino", openvino.__version__)
CORE = openvino.Core()


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


def run(made, feeds):
    """Return the outputs of onnxruntime, of onnx's reference and of OpenVINO."""
    text = made.SerializeToString()
    compiled = CORE.compile_model(CORE.read_model(io.BytesIO(text)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [
        onnxruntime.InferenceSession(text).run(None, feeds)[0],
        ReferenceEvaluator(made).run(None, feeds)[0],
        compiled([feeds[port.any_name] for port in compiled.inputs])[0],
    ]

x = np.array([1, -2, 3], np.float32)
found = {}
for op, values in (("ReduceL1", x), ("ReduceL2", x), ("ReduceLogSum", np.abs(x)), ("ReduceSumSquare", x)):
    made = model(op, {"x": values}, opset=18, noop_with_empty_axes=1)
    found[op] = [np.round(y.astype(float), 3).tolist() for y in run(made, {"x": values})]
    print(f"{op} of {values.tolist()}: onnxruntime {found[op][0]}, reference {found[op][1]}, OpenVINO {found[op][2]}")
same = found["ReduceSumSquare"][0] == found["ReduceSumSquare"][2] == [1.0, 4.0, 9.0]
lost = all(found[op][0] == found[op][1] == [1.0, 2.0, 3.0] for op in ("ReduceL1", "ReduceL2"))
lost &= found["ReduceL1"][2] == found["ReduceL2"][2] == [1.0, -2.0, 3.0]
lost &= found["ReduceLogSum"][0] == [0.0, 0.693, 1.099] and found["ReduceLogSum"][2] == [1.0, 2.0, 3.0]
sys.exit(0 if same and lost else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
