#!/usr/bin/env bash
# RoiAlign with mode "max": onnxruntime and onnx's reference take the maximum of weighted corners, OpenVINO that of
# the samples, but never below 0.
#
# Expected: bilinear samples are taken from each bin and the largest is the result: -1 on a map that is -1 everywhere,
#   1 on a map of ones.
# Happens: the map of ones gives 0.56 in onnxruntime and the reference: each of the four neighbours is multiplied by
#   its weight first, and the maximum is taken over the products (its log warns of it). OpenVINO gives 1; but the map
#   of -1 gives 0 in OpenVINO, whose maximum starts there, and a number near zero in the others. mode "avg" is right
#   in all three.
# Hurts: detectors exported with max pooling of regions; signed feature maps (no ReLU before) above all. No two
#   runtimes can be compared by it.
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

rois, image = np.array([[0.25, 0.25, 4.25, 4.25]], np.float32), np.array([0])
found = {}
for mode in ("avg", "max"):
    for value in (1, -1):
        feeds = {"x": np.full((1, 1, 6, 6), value, np.float32), "rois": rois, "image": image}
        options = {"output_height": 2, "output_width": 2, "sampling_ratio": 2, "spatial_scale": 1.0}
        made = model("RoiAlign", feeds, opset=16, mode=mode, coordinate_transformation_mode="half_pixel", **options)
        found[mode, value] = [float(y.max()) for y in run(made, feeds)]
        print(f"{mode} of {value}: onnxruntime, reference, OpenVINO:", np.round(found[mode, value], 4).tolist())
right = all(np.allclose(found["avg", value], value) for value in (1, -1))
ones, minus = found["max", 1], found["max", -1]
odd = ones[0] == ones[1] < 0.9 and ones[2] == 1 and -0.9 < minus[0] == minus[1] <= 0 and minus[2] == 0
sys.exit(0 if right and odd else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
