#!/usr/bin/env bash
# onnx's reference evaluator runs RNN, GRU and LSTM without their sequence lengths, clip and input_forget, and GRU and LSTM
# without their activations.
#
# Expected: the evaluator is there to say what an operator means, so it follows the inputs and attributes or raises.
# Happens: each of these gives, without a word, the numbers of the plain layer: steps behind a sequence's end are computed,
#   no sum is clipped, a GRU with Relu stays one with Tanh. onnxruntime follows all of them.
# Hurts: who checks an exporter, an optimizer or a runtime of his own against the evaluator: a right export of batches of
#   different lengths looks wrong, and one that lost the lengths looks right.
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
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
STEPS, BATCH, SIZE, HIDDEN = 4, 2, 3, 3
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"GRU": ["Sigmoid", "Relu"], "LSTM": ["Sigmoid", "Relu", "Tanh"]}
x = 2 * np.random.default_rng(0).normal(size=(STEPS, BATCH, SIZE)).astype(np.float32)


def both(kind, lengths=False, **attributes):
    """Return the outputs of onnxruntime and of the reference evaluator."""
    rng, gates = np.random.default_rng(1), GATES[kind]
    constants = {
        "w": rng.normal(size=(1, gates * HIDDEN, SIZE)).astype(np.float32),
        "r": rng.normal(size=(1, gates * HIDDEN, HIDDEN)).astype(np.float32),
        "b": rng.normal(size=(1, 2 * gates * HIDDEN)).astype(np.float32),
    }
    if lengths:
        constants["lengths"] = np.array([2, STEPS], np.int32)
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *constants], ["y"], hidden_size=HIDDEN, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [each.run(None, {"x": x})[0] for each in (session, ReferenceEvaluator(model))]


changed = []
for kind in GATES:
    ort, plain = both(kind)
    asked = {"lengths": {"lengths": True}, "clip": {"clip": 0.5}}
    if kind == "LSTM":
        asked["input_forget"] = {"input_forget": 1}
    if kind in ACTIVATIONS:
        asked["activations"] = {"activations": ACTIVATIONS[kind]}
    if not np.allclose(ort, plain, atol=1e-5):
        changed.append(kind)
    for name, options in asked.items():
        ort, reference = both(kind, **options)
        ignored = np.allclose(reference, plain, atol=1e-6)
        print(f"{kind} {name}: ignored {ignored}, apart from onnxruntime by at most {np.abs(reference - ort).max():.2f}")
        if not ignored or np.abs(reference - ort).max() < 0.05:
            changed.append(f"{kind} {name}")
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
