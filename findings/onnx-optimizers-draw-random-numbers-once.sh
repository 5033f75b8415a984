#!/usr/bin/env bash
# onnxslim and onnxscript's optimizer, which torch.onnx.export runs, compute random operators once and keep what they drew.
#
# Expected: an optimizer that folds constants leaves out operators that give other numbers at every run; onnxruntime's own
#   and onnx-simplifier do.
# Happens: where all inputs are constants, onnxscript's optimizer folds Dropout in training mode and Bernoulli, and onnxslim
#   folds these and Multinomial, RandomNormalLike and RandomUniform: the file holds one draw for good.
# Hurts: networks that sample their weights to tell how sure they are (Monte Carlo DropConnect, Bayesian layers): all
#   samples of the exported file are equal, so that every answer looks certain, without a warning.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 \
  onnxscript==0.7.2 onnx-ir==1.1.0 onnxslim==0.1.98 onnxsim==0.8.1
cat > "$work/check.py" <<'PY'
import copy
import sys
from importlib.metadata import version

import numpy as np
import onnxruntime
import onnxsim
import onnxslim
from onnx import TensorProto, helper, numpy_helper
from onnxscript import optimizer

onnxruntime.set_default_logger_severity(4)
print(", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "onnxscript", "onnxslim", "onnxsim")))
SIZE = 1000
HALF, YES = np.float32(0.5), np.array(True)
HALVES = np.full((1, SIZE), 0.5, np.float32)


def sampled(nodes, **constants):
    """Return a network that multiplies its input by random weights."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "sampled",
        [value("x", TensorProto.FLOAT, [1, 1])],
        [value("y", TensorProto.FLOAT, [1, SIZE])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def is_random(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    first, second = (session.run(None, {"x": np.ones((1, 1), np.float32)})[0] for _ in range(2))
    return not np.array_equal(first, second)


node = helper.make_node
MODELS = {
    "Dropout": sampled([node("Dropout", ["w", "r", "t"], ["weights"])], w=HALVES, r=HALF, t=YES),
    "Bernoulli": sampled([node("Bernoulli", ["w"], ["weights"])], w=HALVES),
    "Multinomial": sampled(
        [
            node("Multinomial", ["w"], ["drawn"], sample_size=SIZE, dtype=TensorProto.INT32),
            node("Cast", ["drawn"], ["weights"], to=TensorProto.FLOAT),
        ],
        w=np.zeros((1, 10), np.float32),
    ),
    "RandomNormalLike": sampled([node("RandomNormalLike", ["w"], ["weights"])], w=HALVES),
    "RandomUniform": sampled([node("RandomUniform", [], ["weights"], shape=[1, SIZE])]),
}
OPTIMIZERS = {
    "none": lambda model: model,
    "onnxsim": lambda model: onnxsim.simplify(model)[0],
    "onnxscript": lambda model: optimizer.optimize(copy.deepcopy(model)),
    "onnxslim": onnxslim.slim,
}
fixed = {
    name: [kind for kind, model in MODELS.items() if not is_random(optimize(model))]
    for name, optimize in OPTIMIZERS.items()
}
for name, kinds in fixed.items():
    print(f"{name}: equal in every run are {', '.join(kinds) or 'none'}")
seen = {"none": [], "onnxsim": [], "onnxscript": ["Dropout", "Bernoulli"], "onnxslim": list(MODELS)}
sys.exit(0 if fixed == seen else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
