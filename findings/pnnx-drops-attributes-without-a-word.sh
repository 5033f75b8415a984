#!/usr/bin/env bash
# pnnx, which converts ONNX files for ncnn, leaves out attributes that its operators lack, and the result computes something
# else.
#
# Expected: Shrink with lambd and bias, Pad of mode wrap, and Resize to nearest pixels whose corners are aligned are converted, or
#   refused as unknown operators are.
# Happens: Shrink runs with its defaults (0.5 and 0), Pad fills with zeros, Resize takes the pixels of asymmetric coordinates. The
#   converter ends with status 0 and says nothing of it; ncnn runs the file.
# Hurts: who brings a network to a phone with ncnn and tests only that it loads: borders of panoramas and circular
#   convolutions, soft thresholds of denoisers, masks that are moved by a pixel.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ncnn==1.0.20261020 pnnx==20261020 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import ncnn
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

PLACE = Path(sys.argv[1]).parent


def outputs(node, x, shape, constants):
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x.shape), ("y", shape))]
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph([node], "g", ends[:1], ends[1:], kept), opset_imports=[helper.make_opsetid("", 19)]
    )
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, PLACE / "model.onnx")
    session = onnxruntime.InferenceSession(str(PLACE / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]

    size = f"inputshape=[{','.join(map(str, x.shape))}]f32"
    pnnx = Path(sys.executable).with_name("pnnx")
    subprocess.run([pnnx, "model.onnx", size, "fp16=0"], cwd=PLACE, check=True, capture_output=True)
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param(str(PLACE / "model.ncnn.param")) == net.load_model(str(PLACE / "model.ncnn.bin")) == 0
    with net.create_extractor() as extractor:
        image = ncnn.Mat(x[0]).clone()
        extractor.input("in0", image)
        y = np.array(extractor.extract("out0")[1])
    return expected[0].round(3).ravel().tolist(), y.round(3).ravel().tolist()


print("pnnx", version("pnnx"), "ncnn", ncnn.__version__, "onnxruntime", onnxruntime.__version__)
row = np.array([1, 2, 3, 4], np.float32)
square = np.repeat(row, 2).reshape(1, 1, 4, 2)
shrink = helper.make_node("Shrink", ["x"], ["y"], lambd=0.25, bias=0.125)
wrap = helper.make_node("Pad", ["x", "pads"], ["y"], mode="wrap")
corners = helper.make_node(
    "Resize",
    ["x", "", "scales"],
    ["y"],
    mode="nearest",
    coordinate_transformation_mode="align_corners",
    nearest_mode="floor",
)
found = {
    "Shrink(lambd=0.25, bias=0.125)": outputs(shrink, np.full((1, 1, 1, 2), 0.375, np.float32), [1, 1, 1, 2], {}),
    "Pad, wrap": outputs(wrap, square, [1, 1, 6, 2], {"pads": np.array([0, 0, 1, 0, 0, 0, 1, 0])}),
    "Resize, align_corners": outputs(
        corners, square, [1, 1, 8, 2], {"scales": np.array([1, 1, 2, 1], np.float32)}
    ),
}
for case, (expected, y) in found.items():
    print(case, "onnxruntime", expected, "ncnn", y, sep="\n  ")
twice = lambda *values: [value for value in values for _ in range(2)]
expected = {
    "Shrink(lambd=0.25, bias=0.125)": ([0.25, 0.25], [0, 0]),
    "Pad, wrap": (twice(4, 1, 2, 3, 4, 1), twice(0, 1, 2, 3, 4, 0)),
    "Resize, align_corners": (twice(1, 1, 1, 2, 2, 3, 3, 4), twice(1, 1, 2, 2, 3, 3, 4, 4)),
}
sys.exit(0 if found == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
