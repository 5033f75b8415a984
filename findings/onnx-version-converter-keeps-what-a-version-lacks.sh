#!/usr/bin/env bash
# onnx.version_converter of onnx 1.23.2 keeps attributes that the operation of the other opset does not have.
#
# Expected: what the other version cannot say is left out where it changes nothing, and refused where it does.
# Happens: no error. ReduceMean keeps noop_with_empty_axes (0, its default, which torch's exporter writes) from 18 to
#   17; Pad of mode edge keeps value from 2 to 11 and later; AveragePool keeps dilations from 19 to 18. The checker
#   refuses all three files, and so does onnxruntime.
# Hurts: who lowers a file of torch.onnx.export for an older runtime: any network with a global mean (every ResNet)
#   ends so. An attribute that is at its default has to be removed by hand before converting.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
from onnx import helper, numpy_helper, version_converter

print(*(f"{each} {version(each)}" for each in ("onnx",)))


def build(nodes, inputs, constants=(), outputs=1, opset=21):
    """Return a model of the inputs and constants, arrays by name, with outputs y0, y1, ..."""
    info, kind = helper.make_tensor_value_info, helper.np_dtype_to_tensor_dtype
    given = [info(k, kind(v.dtype), v.shape) for k, v in inputs.items()]
    stored = [numpy_helper.from_array(v, k) for k, v in dict(constants).items()]
    asked = [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)]
    graph = helper.make_graph(nodes, "graph", given, asked, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
CASES = [  # from, to, operation, constants, attributes
    (18, 17, "ReduceMean", {"axes": np.array([2, 3])}, {"noop_with_empty_axes": 0}),
    (2, 11, "Pad", {}, {"mode": "edge", "pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 0.0}),
    (19, 18, "AveragePool", {}, {"kernel_shape": [2, 2], "dilations": [1, 1]}),
]
changed = []
for before, after, operation, constants, attributes in CASES:
    node = helper.make_node(operation, ["x", *constants], ["y0"], **attributes)
    old = build([node], {"x": x}, constants, opset=before)
    onnx.checker.check_model(old)
    new = version_converter.convert_version(old, after)
    try:
        onnx.checker.check_model(new)
        said = "valid"
    except onnx.checker.ValidationError as error:
        said = str(error).splitlines()[0]
    print(f"{operation} from {before} to {after}: {said}")
    if "Unrecognized attribute" not in said:
        changed.append(operation)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
cd "$work"
venv/bin/python -W ignore check.py
