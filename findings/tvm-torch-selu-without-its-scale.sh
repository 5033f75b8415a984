#!/usr/bin/env bash
# TVM's importer of torch.export leaves the scale of a SELU away.
#
# Expected: SELU is 1.0507 times an ELU with alpha 1.6733, for positive inputs 1.0507 x; so says torch.
# Happens: what TVM compiles from nn.SELU returns x for positive x, and 1.6733 (exp(x) - 1) else: torch.export writes SELU as
#   an elu with three numbers, and the importer reads the first.
# Hurts: self-normalising networks: each of their layers shrinks by 5 %, a network of 20 by two thirds, without an error.
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
x = torch.tensor([-1.0, 0.5, 2.0])
right, found = torch.selu(x), compiled(torch.selu, x)
print("torch", right.tolist(), "tvm", found.tolist())
sys.exit(0 if torch.allclose(right / found, torch.full((3,), 1.0507), atol=1e-4) else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
