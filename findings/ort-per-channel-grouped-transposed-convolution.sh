#!/usr/bin/env bash
# onnxruntime's quantize_static with per_channel=True fails on a ConvTranspose with groups and a bias.
#
# Expected: as without groups, or without per_channel: both work. The weight of a transposed convolution is
#   [in, out / groups, height, width], so one scale per output channel takes `groups` times as many as its second axis has.
# Happens: one scale for each place of the second axis, to which the bias of all output channels does not fit: ValueError
#   "operands could not be broadcast together", in QDQ.
# Hurts: who quantizes segmentation decoders and generators with the setting that is advised for accuracy.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 sympy==1.14.0
cat > "$work/check.py" <<'PY'
import logging
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

logging.disable(logging.WARNING)
onnxruntime.set_default_logger_severity(4)
print("onnxruntime", onnxruntime.__version__)
rng = np.random.default_rng(0)


class Batches(CalibrationDataReader):
    def __init__(self, batches):
        self.batches = iter([{"x": batch} for batch in batches])

    def get_next(self):
        return next(self.batches, None)


def tensor(name, values):
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def quantized(nodes, constants, shape, **options):
    """Return the outputs of a float network and of its quantization on one batch that was calibrated with."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, None)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    batches = [rng.normal(size=shape).astype(np.float32) for _ in range(8)]
    with tempfile.TemporaryDirectory() as directory:
        paths = [str(pathlib.Path(directory, name)) for name in ("float.onnx", "int8.onnx")]
        onnx.save(onnx.shape_inference.infer_shapes(model), paths[0])
        quantize_static(*paths, Batches(batches), **options)
        return [onnxruntime.InferenceSession(path).run(None, {"x": batches[0]})[0] for path in paths]


def worst(*args, **options):
    """Return the largest error as a fraction of the largest output."""
    expected, got = quantized(*args, **options)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def outcome(groups, per_channel, bias):
    constants = [tensor("w", rng.normal(size=(4, 6 // groups, 3, 3))), tensor("b", rng.normal(size=6))][: 1 + bias]
    names = ["x", "w", "b"][: 2 + bias]
    node = helper.make_node("ConvTranspose", names, ["y"], kernel_shape=[3, 3], group=groups)
    try:
        return worst([node], constants, [2, 4, 8, 8], quant_format=QuantFormat.QDQ, per_channel=per_channel) < 0.05
    except ValueError as error:
        return str(error)


found = {}
for case in ((1, True, True), (2, False, True), (2, True, False), (2, True, True)):
    found[case] = outcome(*case)
    print("groups={} per_channel={} bias={}:".format(*case), found[case])
*fine, last = found.values()
sys.exit(0 if fine == [True] * 3 and "broadcast" in str(last) else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
