#!/usr/bin/env bash
# onnxruntime's quantize_static forgets Gemm's `beta` in both formats, and its `alpha` in QOperator.
#
# Expected: int8 of y = alpha * x @ w + beta * b is within a percent or two of the float network, as for alpha = beta = 1.
# Happens: without a word, the bias counts in full whatever beta is (the error is as large as the bias), and with
#   QuantFormat.QOperator an alpha of 0.5 gives an error of 0.3 of the largest output, where QDQ has 0.01. quantize_dynamic
#   leaves such nodes in float, which is right.
# Hurts: exporters that write a residual factor, LoRA's alpha or a soft bias as Gemm attributes.
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


def error(alpha, beta, form):
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=alpha, beta=beta)
    constants = [tensor("w", rng.normal(size=(8, 6))), tensor("b", 5 * rng.normal(size=6))]
    return worst([node], constants, [4, 8], quant_format=form)


for form in (QuantFormat.QDQ, QuantFormat.QOperator):
    errors = {pair: error(*pair, form) for pair in ((1.0, 1.0), (1.0, 0.25), (0.5, 1.0))}
    print(form.name, {f"alpha={a} beta={b}": round(each, 3) for (a, b), each in errors.items()})
    if errors[1.0, 1.0] > 0.05 or errors[1.0, 0.25] < 0.5:
        sys.exit("the behaviour of beta has changed")
    if (errors[0.5, 1.0] > 0.1) != (form == QuantFormat.QOperator):
        sys.exit("the behaviour of alpha has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
