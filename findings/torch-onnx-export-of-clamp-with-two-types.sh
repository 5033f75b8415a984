#!/usr/bin/env bash
# torch.onnx.export cannot export x.clamp(0, 1.0): one bound a whole number, the other not.
#
# Expected: the bounds of a float tensor may be Python numbers of either type, as in PyTorch itself; clamp(0, 1),
#   clamp(0.0, 1.0) and hardtanh with the same bounds are exported as one Clip.
# Happens: ConversionError, "Cannot find a compatible OpOverload for aten.clamp": promotion of types makes a tensor of the
#   whole number only. torch.export itself succeeds.
# Hurts: hard sigmoids and gates that people write by hand: clamp(0, 1.0), clip(x, -1, 0.5).
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2
cat > "$work/check.py" <<'PY'
import contextlib
import io
import logging
import sys

import torch
from torch import nn

logging.disable(logging.WARNING)
print("torch", torch.__version__)


class Bounded(nn.Module):
    def __init__(self, bounds):
        super().__init__()
        self.linear, self.bounds = nn.Linear(4, 3), bounds

    def forward(self, x):
        return self.linear(x).clamp(*self.bounds)


found = []
for bounds in ((0, 1), (0.0, 1.0), (0, 1.0), (-0.5, 1)):
    module, x = Bounded(bounds).eval(), torch.zeros(2, 4)
    torch.export.export(module, (x,))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            program = torch.onnx.export(module, (x,), dynamo=True)
        outcome = " ".join(node.op_type for node in program.model.graph)
    except torch.onnx.OnnxExporterError as error:
        outcome = "compatible OpOverload" if "compatible OpOverload for aten.clamp" in str(error) else repr(error)
    print(f"clamp{bounds}: {outcome}")
    found.append(outcome)
sys.exit(0 if found == ["Gemm Clip"] * 2 + ["compatible OpOverload"] * 2 else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
