#!/usr/bin/env bash
# onnx2torch converts a CumSum without the attribute `reverse` into one that runs backwards.
#
# Expected: `reverse` is 0 unless a file says otherwise: the cumulative sums of 1, 2, 3, 4 are 1, 3, 6, 10.
# Happens: the converter's own default is 1: 10, 9, 7, 4, with or without exclusive=1. With reverse=0 written out, as
#   torch's exporter does it, all is right, so a round trip from torch and back shows nothing.
# Hurts: files made by hand or by other exporters and optimizers, which leave defaults away: positions, offsets in a
#   packed batch, masks by cumulative counts.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir onnx2torch==1.5.15 torch==2.14.1 torchvision==0.29.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import importlib.metadata
import sys

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx2torch import convert

print("onnx2torch", importlib.metadata.version("onnx2torch"), "onnxruntime", onnxruntime.__version__)


def sums(**attributes):
    x = np.arange(1, 5, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("CumSum", ["x", "axis"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(np.array(0), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    return expected.tolist(), convert(model)(torch.from_numpy(x)).numpy().tolist()


found = []
for attributes in ({}, {"exclusive": 1}, {"reverse": 0}, {"reverse": 1}, {"exclusive": 1, "reverse": 0}):
    expected, got = sums(**attributes)
    found.append(expected == got)
    print(f"{attributes}: onnxruntime {expected}, onnx2torch {got}")
sys.exit(0 if found == [False, False, True, True, True] else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
