#!/usr/bin/env bash
# TVM: a reduction over no axes returns its input, without the square, the absolute value or the logarithm.
#
# Expected: with noop_with_empty_axes=1 and no axes, ONNX leaves only the reduction out: "ReduceSumSquare returns the
#   Square of the input tensor", ReduceL1 and ReduceL2 the absolute value, ReduceLogSum the logarithm. onnxruntime does so.
# Happens: TVM returns the input itself, with its signs.
# Hurts: graphs whose axes are computed or empty after simplification: norms become negative, energies are not squared.
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
x = np.array([-3, 2], np.float32)
right = {"ReduceSumSquare": x**2, "ReduceL1": abs(x), "ReduceL2": abs(x), "ReduceLogSum": np.log(abs(x))}
same = True
for kind, values in right.items():
    given = abs(x) if kind == "ReduceLogSum" else x
    runtime, compiled = both(helper.make_node(kind, ["x"], ["y"], noop_with_empty_axes=1), given)
    print(kind, "onnxruntime", runtime, "tvm", compiled)
    same &= np.allclose(runtime, values) and np.array_equal(compiled, given)
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
