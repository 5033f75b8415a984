#!/usr/bin/env bash
# onnx's reference evaluator computes LRN for the first N channels only, where N is the number of images in the batch.
#
# Expected: local response normalization divides every channel by the squares around it, whatever the batch.
# Happens: the loop over channels ends at the size of the batch. With one image the first channel is right and all
#   others are divided by bias ** beta alone; with five images of five channels everything is right, with fewer the
#   channels behind are not.
# Hurts: who checks an export of AlexNet or GoogLeNet against the evaluator with one image: the right runtime looks
#   wrong; or with a large batch of few channels, and sees nothing.
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

found = {}
for images in (1, 3, 5):
    x = np.random.default_rng(0).normal(0, 5, size=(images, 5, 2, 2)).astype(np.float32)
    made = model("LRN", {"x": x}, size=3, alpha=0.1, beta=0.75, bias=1.0)
    expected = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})[0]
    squares = np.pad(x.astype(float) ** 2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    by_hand = x / (1 + 0.1 / 3 * sum(squares[:, i : i + 5] for i in range(3))) ** 0.75
    got = ReferenceEvaluator(made).run(None, {"x": x})[0]
    assert np.allclose(expected, by_hand, atol=1e-4), "onnxruntime does not follow the formula any more"
    found[images] = np.abs(got - expected).max((0, 2, 3)).round(3).tolist()
    print(f"{images} images: largest error of each channel {found[images]}")
as_before = min(found[1][2:]) > 0.1 and found[3][:3] == [0.0] * 3 and min(found[3][3:]) > 0.1 and found[5] == [0.0] * 5
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
