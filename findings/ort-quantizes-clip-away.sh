#!/usr/bin/env bash
# onnxruntime's quantize_static removes a Clip behind a convolution although its lower bound is above zero.
#
# Expected: the quantized network's outputs stay in [0.5, 3] if a Clip to [0.5, 3] ends the float network. A Clip is
#   superfluous only if the integers' own range has the same ends.
# Happens: the Clip is removed as ReLU6 would be; a range of integers always holds zero, so it is [0, 3], and values
#   between 0 and 0.5 appear that the float network cannot give. The error is the whole lower bound.
# Hurts: positive outputs such as widths, variances or temperatures, and divisions by them.
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


nodes = [
    helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[1, 1]),
    helper.make_node("Clip", ["a", "low", "high"], ["y"]),
]
changed = False
for form in (QuantFormat.QDQ, QuantFormat.QOperator):
    constants = [tensor("w", rng.normal(size=(6, 4, 1, 1))), tensor("low", 0.5), tensor("high", 3.0)]
    expected, got = quantized(nodes, constants, [2, 4, 8, 8], quant_format=form)
    print(f"{form.name}: float in [{expected.min()}, {expected.max()}], int8 in [{got.min():.3f}, {got.max():.3f}]")
    changed |= not (expected.min() == 0.5 and got.min() < 0.1)
sys.exit("the behaviour has changed" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
