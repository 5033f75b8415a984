#!/usr/bin/env bash
# TVM's IsInf finds both infinities, also where the node asks for one.
#
# Expected: with detect_negative=0 ONNX's IsInf is true for +inf alone, with detect_positive=0 for -inf alone.
# Happens: TVM's importer reads neither attribute; both nodes are true for -inf and +inf.
# Hurts: masks of attention, in which -inf is meant to stand: a check for an overflow (+inf) that replaces what it finds
#   replaces the mask as well.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check apache-tvm==0.27.0.post1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def tvm_output(model, *inputs):
    module = relax.transform.LegalizeOps()(from_onnx(model, keep_params_in_input=False))
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    return machine["main"](*[tvm.runtime.tensor(x) for x in inputs]).numpy()


def both(node, x, constants=(), kind=TensorProto.FLOAT):
    """Return the outputs of onnxruntime and of TVM."""
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0], tvm_output(model, x)


print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "tvm", tvm.__version__)
x = np.array([-np.inf, 0, np.inf], np.float32)
expected = {"detect_negative": [False, False, True], "detect_positive": [True, False, False]}
same = True
for name, right in expected.items():
    node = helper.make_node("IsInf", ["x"], ["y"], **{name: 0})
    runtime, compiled = both(node, x, kind=TensorProto.BOOL)
    print(f"{name}=0: onnxruntime", runtime, "tvm", compiled)
    same &= runtime.tolist() == right and compiled.tolist() == [True, False, True]
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
