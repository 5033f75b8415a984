#!/usr/bin/env bash
# OpenVINO draws the same numbers at every run of an ONNX Multinomial, where its RandomUniformLike draws new ones.
#
# Expected: an operator without a seed draws other numbers at every run, as ONNX says and as onnxruntime does; so do
#   RandomUniformLike and RandomNormalLike in OpenVINO.
# Happens: within a process, Multinomial begins at the same state in every run, also after another compilation; another
#   process has another state. The shares of the classes are right within one run.
# Hurts: loops that draw one sample per run, such as a sampled sequence or a stochastic policy: all of its steps use one
#   and the same random number, so that what looks like sampling is a fixed threshold.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 \
  openvino==2026.4.1
cat > "$work/check.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

LOGITS = np.log(np.array([[0.7, 0.1, 0.2]], np.float32))
RUNS, SIZE = 5, 1000


def graph(node, kind, size):
    value = helper.make_tensor_value_info
    made = helper.make_graph([node], "g", [value("x", TensorProto.FLOAT, [1, 3])], [value("y", kind, [1, size])])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


MODELS = {
    "Multinomial": graph(
        helper.make_node("Multinomial", ["x"], ["y"], sample_size=SIZE, dtype=TensorProto.INT32),
        TensorProto.INT32,
        SIZE,
    ),
    "RandomUniformLike": graph(helper.make_node("RandomUniformLike", ["x"], ["y"]), TensorProto.FLOAT, 3),
}


def in_openvino(model):
    onnx.save(model, "model.onnx")
    draws = []
    for _ in range(2):
        compiled = openvino.Core().compile_model("model.onnx", "CPU")
        draws += [np.array(compiled([LOGITS])[compiled.output(0)])[0] for _ in range(RUNS)]
    return draws


def in_onnxruntime(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {"x": LOGITS})[0][0] for _ in range(2 * RUNS)]


def different(draws):
    return len({draw.tobytes() for draw in draws})


print("openvino", openvino.__version__, "onnxruntime", onnxruntime.__version__)
counts = {}
for name, model in MODELS.items():
    for engine in (in_openvino, in_onnxruntime):
        draws = engine(model)
        counts[name, engine] = different(draws)
        print(f"{engine.__name__}: {name} gave {counts[name, engine]} different draws in {2 * RUNS} runs")
shares = np.bincount(in_openvino(MODELS["Multinomial"])[0], minlength=3) / SIZE
print(f"in_openvino: shares {shares.tolist()} of 0.7, 0.1 and 0.2")
repeats = counts["Multinomial", in_openvino] == 1
others = all(count == 2 * RUNS for key, count in counts.items() if key != ("Multinomial", in_openvino))
sys.exit(0 if repeats and others and abs(shares - np.exp(LOGITS[0])).max() < 0.05 else "the behaviour has changed")
PY
cd "$work"
"$work/venv/bin/python" "$work/check.py"
