#!/usr/bin/env bash
# thop, torchinfo and torch-pruning count a transposed convolution of stride 2 four times, as if it multiplied at each
# pixel of its output.
#
# Expected: each input pixel is multiplied with each weight once: 8 x 8 pixels, 8 to 4 channels and 3 x 3 weights are
#   18,432 multiplications, whatever the stride. fvcore and torch's own counter say so.
# Happens: 73,728 in the three, the number of a plain convolution on the enlarged image (torchinfo and torch-pruning
#   add the bias to it). With stride 1 all agree.
# Hurts: decoders, generators and super-resolution networks: reported costs up to four times too high, so a pruned
#   encoder seems to save less than it does, and a search under a bound on MACs takes the wrong layers away.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1 numpy==2.4.6 thop==0.1.1.post2209072238 torchinfo==1.8.0 torch-pruning==1.6.1 fvcore==0.1.5.post20221221
cat > "$work/check.py" <<'PY'
import copy
import sys

import thop
import torch
import torch_pruning
import torchinfo
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__, "torch-pruning", torch_pruning.__version__, "torchinfo", torchinfo.__version__)
x = torch.ones(1, 8, 8, 8)


def counts(stride):
    """Return the multiplications that each library counts."""
    layer = nn.ConvTranspose2d(8, 4, 3, stride, padding=1, output_padding=stride - 1, bias=False)
    network = nn.Sequential(layer).eval()
    with FlopCounterMode(display=False) as counter:
        network(x)
    return {
        "fvcore": FlopCountAnalysis(network, x).total(),
        "torch": counter.get_total_flops() // 2,
        "thop": int(thop.profile(copy.deepcopy(network), (x,), verbose=False)[0]),
        "torchinfo": torchinfo.summary(copy.deepcopy(network), input_data=x, verbose=0).total_mult_adds,
        "torch-pruning": int(torch_pruning.utils.count_ops_and_params(copy.deepcopy(network), x)[0]),
    }


right = 8 * 8 * 8 * 4 * 9
found = {stride: counts(stride) for stride in (1, 2)}
for stride, numbers in found.items():
    print(f"stride {stride}, right: {right}:", numbers)
as_before = set(found[1].values()) == {right} and list(found[2].values()) == [right] * 2 + [4 * right] * 3
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
