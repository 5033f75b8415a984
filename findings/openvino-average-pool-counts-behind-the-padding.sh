#!/usr/bin/env bash
# OpenVINO's AveragePool with ceil_mode and count_include_pad divides by places that are neither image nor padding.
#
# Expected: count_include_pad counts the padding that the node asks for. A last window that ceil_mode lets hang over
#   has places behind it; those count in no other runtime (nor in torch), so ones padded by 1 average to 3/6 at the
#   right border.
# Happens: OpenVINO divides by the whole kernel: 3/9. onnxruntime and onnx's reference say 0.5. Without
#   count_include_pad, without ceil_mode or without pads all agree.
# Hurts: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True) with torch's default count_include_pad: right and lower borders
#   a third too dark, in this runtime alone.
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

x = np.ones((1, 1, 6, 6), np.float32)
found = {}
for ceil, count, pads in ((1, 1, [1] * 4), (1, 0, [1] * 4), (0, 1, [1] * 4), (1, 1, [0] * 4)):
    options = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": ceil, "count_include_pad": count, "pads": pads}
    outputs = run(model("AveragePool", {"x": x}, opset=22, **options), {"x": x})
    found[ceil, count, pads[0]] = np.array([y[0, 0, 1, -1] for y in outputs])
    print(f"ceil_mode={ceil} count_include_pad={count} pads={pads[0]}: last of the second row", outputs[0][0, 0, 1, -1],
          outputs[1][0, 0, 1, -1], outputs[2][0, 0, 1, -1])
odd = found.pop((1, 1, 1))
as_before = np.allclose(odd, [0.5, 0.5, 1 / 3]) and all(np.ptp(y) < 1e-6 for y in found.values())
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
