#!/usr/bin/env bash
# TVM's importer of torch.export reads the grid of grid_sample as if its two coordinates stood in the second axis.
#
# Expected: a grid of (1, 3, 4, 2) gives a picture of 3 x 4, as in torch.
# Happens: TVM compiles without a word and returns 4 x 2, the last two axes of the grid.
# Hurts: spatial transformers, deformable attention and flow: the picture has another size, and other contents.
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
x = torch.arange(20.0).reshape(1, 1, 4, 5)
grid = F.affine_grid(torch.eye(2, 3)[None], [1, 1, 3, 4], align_corners=False)
right = F.grid_sample(x, grid, align_corners=False)
found = compiled(lambda v: F.grid_sample(v, grid, align_corners=False), x)
print("torch", tuple(right.shape), "tvm", tuple(found.shape))
same = right.shape == (1, 1, 3, 4) and found.shape == (1, 1, 4, 2)
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
