#!/usr/bin/env bash
# OpenVINO's DFT of a real signal with onesided=1 has one axis too many: [2, 4, 1, 2] where ONNX says [2, 4, 2].
#
# Expected: a real signal [2, 6, 1] has a one-sided spectrum [2, 4, 2]: real and imaginary part take the place of the
#   last axis. onnxruntime, onnx's reference and onnx's shape inference agree; so does OpenVINO with onesided=0.
# Happens: the axis of size 1 stays and another of size 2 is appended, in opsets 17 and 20. The numbers are right.
# Hurts: spectrograms in the graph: what follows broadcasts over the wrong axes without an error (a sum over the last
#   axis and a division still run), or a MatMul fails in this runtime alone.
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

x = np.random.default_rng(0).normal(size=(2, 6, 1)).astype(np.float32)
found = {}
for opset in (17, 20):
    for onesided in (0, 1):
        axis = {"axis": 1} if opset == 17 else {}
        made = model("DFT", {"x": x}, (), opset, onesided=onesided, **axis)
        if opset == 20:
            made.graph.node[0].input.extend(["", "axis"])
            made.graph.initializer.append(numpy_helper.from_array(np.array(1), "axis"))
        outputs = run(made, {"x": x})
        found[opset, onesided] = [y.shape for y in outputs]
        print(f"opset {opset} onesided={onesided}:", *found[opset, onesided])
full, half = [(2, 6, 2)] * 3, [(2, 4, 2)] * 2 + [(2, 4, 1, 2)]
sys.exit(0 if found == {(17, 0): full, (17, 1): half, (20, 0): full, (20, 1): half} else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
