#!/usr/bin/env bash
# TVM's importer of torch.export ignores divisor_override of an average pooling.
#
# Expected: avg_pool2d(x, 2, divisor_override=1) is the sum of four pixels.
# Happens: TVM compiles the mean, a quarter of it.
# Hurts: networks that sum over windows so (local counts, box filters, anti-aliased or normalised pooling of one's own).
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir apache-tvm==0.27.0.post1 torch==2.14.1 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import torch
import torch.nn.functional as F
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
x = torch.arange(16.0).reshape(1, 1, 4, 4)
right = F.avg_pool2d(x, 2, divisor_override=1)
found = compiled(lambda v: F.avg_pool2d(v, 2, divisor_override=1), x)
print("torch", right.flatten().tolist(), "tvm", found.flatten().tolist())
sys.exit(0 if torch.allclose(right, 4 * found) else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
