#!/usr/bin/env bash
# TVM's importer of torch.export keeps the type of an integer tensor that is divided by, or added to, a number with a point.
#
# Expected: torch.arange(4) / 2 is 0, 0.5, 1, 1.5 and torch.arange(4) + 1.5 is 1.5, 2.5, ...: both are float32 in torch.
# Happens: TVM computes both in int64: 0, 0, 1, 1 and 1, 2, 3, 4.
# Hurts: positions and pixels that a network scales itself (indices / length, uint8 images): they become zeros.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir apache-tvm==0.27.0.post1 torch==2.14.1 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import torch
import tvm
from torch import nn
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def compiled(function, x):
    module = from_exported_program(torch.export.export(Call(function).eval(), (x,)))
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    outputs = machine["main"](tvm.runtime.tensor(x.numpy()))
    return torch.from_numpy(outputs[0].numpy())


print("torch", torch.__version__, "tvm", tvm.__version__)
x = torch.arange(4)
expected = {"x / 2": [0, 0, 1, 1], "x + 1.5": [1, 2, 3, 4]}
same = True
for name, function in (("x / 2", lambda v: v / 2), ("x + 1.5", lambda v: v + 1.5)):
    found = compiled(function, x)
    print(name, "torch", function(x), "tvm", found)
    same &= found.dtype == torch.int64 and found.tolist() == expected[name]
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
