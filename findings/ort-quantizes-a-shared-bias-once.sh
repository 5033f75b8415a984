#!/usr/bin/env bash
# onnxruntime's quantize_static in QOperator format gives two convolutions that share a bias one integer bias.
#
# Expected: an integer bias counts in steps of (scale of the input) * (scale of the weights), which differ from layer to
#   layer, so a shared bias becomes one tensor for each of its layers; QDQ does so.
# Happens: the tensor made for the first layer is used for the second, whose bias is then wrong by the ratio of the steps.
#   No warning; the float file is right.
# Hurts: networks that use a layer twice (recurrent blocks, siamese heads, weight tying).
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
        integers = [each for each in onnx.load(paths[1]).graph.initializer if each.data_type == TensorProto.INT32]
        print("integer biases:", len(integers))
        return [onnxruntime.InferenceSession(path).run(None, {"x": batches[0]})[0] for path in paths]


def worst(*args, **options):
    """Return the largest error as a fraction of the largest output."""
    expected, got = quantized(*args, **options)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def error(names, form):
    first, second = names
    nodes = [
        helper.make_node("Conv", ["x", "w", first], ["a"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w", second], ["y"], kernel_shape=[1, 1]),
    ]
    weights, bias = 3 * rng.normal(size=(4, 4, 1, 1)), 3 * rng.normal(size=4)
    constants = [tensor("w", weights), *(tensor(name, bias) for name in dict.fromkeys(names))]
    return worst(nodes, constants, [2, 4, 8, 8], quant_format=form)


errors = {}
for form in (QuantFormat.QDQ, QuantFormat.QOperator):
    for names in (("b1", "b2"), ("b", "b")):
        rng = np.random.default_rng(1)
        errors[form.name, names[0] == names[1]] = error(names, form)
for (form, shared), each in errors.items():
    print(f"{form}, bias {'shared' if shared else 'copied'}: largest error {each:.3f} of the largest output")
fine = max(each for key, each in errors.items() if key != ("QOperator", True))
sys.exit(0 if fine < 0.05 and errors["QOperator", True] > 2 * fine else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
