#!/usr/bin/env bash
# TVM forgets the attribute output_shape of a ConvTranspose: the output is larger, and begins elsewhere.
#
# Expected: output_shape, from which ONNX derives the padding: 4 pixels, stride 2 and kernel 3 give 8 with output_shape=[8],
#   without the first of the 9 that there are without padding.
# Happens: TVM's importer takes the node without a word and gives all 9. What follows has another size, and where sizes
#   meet in a broadcast, a pooling over everything or a Resize it runs on pixels that are moved.
# Hurts: decoders and upsampling networks that are converted from frameworks that write the output's size.
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
x = np.array([[[1, 2, 3, 4]]], np.float32)
weight = np.array([[[1, 10, 100]]], np.float32)
node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2], output_shape=[8])
runtime, compiled = both(node, x, [("w", weight)])
print("onnxruntime", runtime.ravel(), "tvm", compiled.ravel())
same = runtime.shape == (1, 1, 8) and compiled.shape == (1, 1, 9) and np.array_equal(runtime, compiled[:, :, 1:])
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
