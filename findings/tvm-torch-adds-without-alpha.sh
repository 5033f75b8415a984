#!/usr/bin/env bash
# TVM's importer of torch.export leaves alpha of torch.add and torch.sub away.
#
# Expected: torch.add(x, y, alpha=3) is x + 3 y, torch.sub(x, y, alpha=3) x - 3 y, torch.rsub(x, y, alpha=3) y - 3 x.
# Happens: TVM compiles x + y, x - y and y - x, without a word.
# Hurts: residual branches, momentum and mixing that are written with alpha: the branch counts as 1.
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
x = torch.tensor([1.0, 10.0])
functions = {
    "add": (lambda v: torch.add(v, v * 2, alpha=3), x + x * 2),
    "sub": (lambda v: torch.sub(v, v * 2, alpha=3), x - x * 2),
    "rsub": (lambda v: torch.rsub(v, v * 2, alpha=3), x * 2 - x),
}
same = True
for name, (function, without) in functions.items():
    found = compiled(function, x)
    print(name, "torch", function(x).tolist(), "tvm", found.tolist())
    same &= torch.equal(found, without) and not torch.equal(found, function(x))
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
