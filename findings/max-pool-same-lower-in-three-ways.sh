#!/usr/bin/env bash
# MaxPool with auto_pad SAME_LOWER and a stride: onnxruntime, onnx's reference and TVM give three answers.
#
# Expected: as ONNX says, ceil(size / stride) outputs, and the odd pixel of padding at the beginning. Of the pixels 1 to 8
#   with kernel 3 and stride 2 that is 2, 4, 6, 8; of 1 to 7 (a pixel of padding at both ends) 2, 4, 6, 7.
# Happens: onnxruntime gives both. The reference gives 3, 5, 7, 8 (the odd pixel at the end, as for SAME_UPPER) and 3, 5, 7;
#   TVM the first, and 3, 5, 7 for the second: both round the number of outputs down and lose the first window. All agree
#   on SAME_UPPER. The file's own shape, which onnx's checker confirms, says 4 outputs.
# Hurts: who converts networks that say SAME_LOWER: on odd sizes everything behind is moved by a pixel, or has another
#   shape; and who tests a runtime against the reference.
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
found = {size: pooled(size, 3, 2, "SAME_LOWER") for size in (8, 7)}
upper = pooled(7, 3, 2, "SAME_UPPER")
for size, outputs in found.items():
    print(f"SAME_LOWER, {size} pixels:", *(f"{name} {y}" for name, y in zip(("onnxruntime", "reference", "tvm"), outputs)))
print("SAME_UPPER, 7 pixels:", *upper)
expected = {8: ([2, 4, 6, 8], [3, 5, 7, 8], [2, 4, 6, 8]), 7: ([2, 4, 6, 7], [3, 5, 7], [3, 5, 7])}
same = found == expected and upper == ([2, 4, 6, 7],) * 3
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
