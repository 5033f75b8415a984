#!/usr/bin/env bash
# torch.func.functional_call: a module that stands under two names has a plain tensor instead of its Parameter afterwards.
#
# Expected: the module is as it was before the call; "the parameters and buffers are replaced" for the call only.
# Happens: with tie_weights (the default) the tensor is swapped in once per name, and what comes back last is the given
#   tensor: layer.weight is no Parameter any more; parameters() yields the copy, and get_parameter() raises.
# Hurts: every network with a layer as attribute and again in a Sequential (temporal blocks, encoders with a list of stages).
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1
cat > "$work/check.py" <<'PY'
import sys

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.net = nn.Sequential(self.fc, nn.ReLU())

    def forward(self, x):
        return self.net(x)


def left(**options):
    net = Net()
    copies = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    torch.func.functional_call(net, copies, (torch.ones(1, 2),), **options)
    return isinstance(net.fc.weight, nn.Parameter), len(list(net.parameters()))


print("torch", torch.__version__)
found = left(), left(tie_weights=False)
print("still a Parameter, number of parameters:", found)
sys.exit(0 if found == ((False, 2), (True, 2)) else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
