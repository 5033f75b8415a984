#!/usr/bin/env bash
# torchinfo counts a linear layer on a sequence as if there were one token.
#
# Expected: nn.Linear(16, 8) on [1, 10, 16] multiplies 10 * 16 * 8 = 1,280 times, as the same weights in a convolution
#   of size 1 do, which torchinfo counts so.
# Happens: 136: the weights and biases once, times the batch. Attention counts nothing at all. A transformer's
#   `total_mult_adds` is about its number of parameters.
# Hurts: who compares transformers with convolutional networks in torchinfo's summary: the transformer looks 10 to 200
#   times cheaper than it is.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1 numpy==2.4.6 torchinfo==1.8.0
cat > "$work/check.py" <<'PY'
import sys

import torch
import torchinfo
from torch import nn

print("torch", torch.__version__, "torchinfo", torchinfo.__version__)


def count(network, *shape):
    return torchinfo.summary(network, input_data=torch.ones(shape), verbose=0).total_mult_adds


linear = [count(nn.Linear(16, 8), 1, tokens, 16) for tokens in (1, 10, 196)]
convolution = [count(nn.Conv1d(16, 8, 1), 1, 16, tokens) for tokens in (1, 10, 196)]
print("1, 10 and 196 tokens: as nn.Linear", linear, "as nn.Conv1d of size 1", convolution)
as_before = linear == [136] * 3 and convolution == [136 * tokens for tokens in (1, 10, 196)]
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
