#!/usr/bin/env bash
# MaxPool with SAME padding and a kernel smaller than its stride begins at the second pixel in onnx's reference and TVM if
# the stride divides the size, and does not run in onnxruntime.
#
# Expected: subsampling with kernel 1 and stride 2 takes the pixels 1, 3, 5, 7 of 8, as of 7: "same" adds padding where it
#   is needed and takes nothing away (TensorFlow: max(..., 0)).
# Happens: the formula of the padding gives -1 here. The reference and TVM cut a pixel off the beginning, so that 2, 4, 6, 8
#   come out; onnxruntime makes a session and raises an error when it runs. Of 7 pixels all give 1, 3, 5, 7.
# Hurts: residual networks whose shortcuts subsample so (kernel 1, stride 2, as older TensorFlow ResNets): the shortcut is a
#   pixel away from its block, without a word, on even sizes only.
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
from onnx.reference import ReferenceEvaluator
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx


def tvm_output(model, *inputs):
    module = relax.transform.LegalizeOps()(from_onnx(model, keep_params_in_input=False))
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    return machine["main"](*[tvm.runtime.tensor(x) for x in inputs]).numpy()


def pooled(size, kernel, stride, pad):
    x = np.arange(1, size + 1, dtype=np.float32).reshape(1, 1, size)
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[kernel], strides=[stride], auto_pad=pad)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, size])], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, -(-size // stride)])
    ]
    model = helper.make_model(helper.make_graph([node], "g", *ends), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        runtime = session.run(None, {"x": x})[0].ravel().astype(int).tolist()
    except Exception as error:
        runtime = type(error).__name__
    reference = ReferenceEvaluator(model).run(None, {"x": x})[0].ravel().astype(int).tolist()
    return runtime, reference, tvm_output(model, x).ravel().astype(int).tolist()


onnxruntime.set_default_logger_severity(4)
print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "tvm", tvm.__version__)
found = {size: pooled(size, 1, 2, "SAME_UPPER") for size in (8, 7)}
for size, outputs in found.items():
    print(f"{size} pixels:", *(f"{name} {y}" for name, y in zip(("onnxruntime", "reference", "tvm"), outputs)))
later, right = [2, 4, 6, 8], [1, 3, 5, 7]
same = isinstance(found[8][0], str) and found[8][1:] == (later, later) and found[7] == (right, right, right)
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
