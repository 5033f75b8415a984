#!/usr/bin/env bash
# tinygrad's ONNX Attention with fewer key heads than query heads gives each query head another group's keys.
#
# Expected: with 4 query heads and 2 key heads, query heads 0 and 1 share the first and 2 and 3 the second, as ONNX's
#   operator says and onnx's reference and onnxruntime compute it.
# Happens: the key heads are repeated as a whole, so heads 0 and 2 get the first, 1 and 3 the second: heads 1 and 2
#   are wrong, and no error is raised. With equal numbers of heads all agree.
# Hurts: exported language models with grouped-query attention (most of today's): fluent nonsense in one runtime
#   alone.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tinygrad==0.14.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import os
import sys
import tempfile

os.environ["DEV"] = "PYTHON"
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from tinygrad import Tensor
from tinygrad.nn.onnx import OnnxRunner

print("onnxruntime", onnxruntime.__version__)
rng = np.random.default_rng(0)


def errors(key_heads):
    """Return the largest error of each of the four query heads."""
    shapes = {"q": (1, 4, 3, 4), "k": (1, key_heads, 5, 4), "v": (1, key_heads, 5, 4)}
    feeds = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Attention", ["q", "k", "v"], ["y"])],
        "g",
        [value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [value("y", TensorProto.FLOAT, shapes["q"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "attention.onnx")
        onnx.save(model, path)
        got = OnnxRunner(path)({name: Tensor(array) for name, array in feeds.items()})["y"].numpy()
    return np.abs(got - expected).max((0, 2, 3)).round(4).tolist()


found = {key_heads: errors(key_heads) for key_heads in (4, 2)}
for key_heads, apart in found.items():
    print(f"4 query heads, {key_heads} key heads: largest error of each head {apart}")
grouped = found[2]
as_before = max(found[4]) < 1e-4 and max(grouped[0], grouped[3]) < 1e-4 and min(grouped[1:3]) > 0.01
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
