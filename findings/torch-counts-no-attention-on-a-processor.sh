#!/usr/bin/env bash
# torch.utils.flop_counter counts nothing for scaled_dot_product_attention on a CPU.
#
# Expected: the two products of attention, 2 * heads * tokens^2 * width multiplications, as they are counted when the
#   same lines are written as matrix products, or on a GPU.
# Happens: 0. On a CPU the operator becomes one for which the counter has no formula, and an operator without a
#   formula is left out silently. nn.TransformerEncoderLayer in training mode thus costs its linear layers alone.
# Hurts: who compares vision transformers with convolutional networks on a laptop: with many tokens most of the work
#   is missing, and the count of one network depends on the device.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__)
x = torch.ones(1, 2, 64, 16)


def by_hand(query, key, value):
    return (query @ key.transpose(-2, -1) / 4).softmax(-1) @ value


def multiplications(attention):
    with FlopCounterMode(display=False) as counter:
        attention(x, x, x)
    return counter.get_total_flops() // 2


right = 2 * 2 * 64 * 64 * 16
found = multiplications(by_hand), multiplications(F.scaled_dot_product_attention)
with FlopCounterMode(display=False) as counter:
    layer = torch.nn.TransformerEncoderLayer(32, 2, 64, batch_first=True, dropout=0.0)
    layer(torch.ones(1, 64, 32))
linear = 64 * (4 * 32 * 32 + 2 * 32 * 64)
print(f"right: {right}; as matrix products, as scaled_dot_product_attention: {found}")
print(f"encoder layer: {counter.get_total_flops() // 2}; its linear layers alone: {linear}")
sys.exit(0 if found == (right, 0) and counter.get_total_flops() // 2 == linear else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
