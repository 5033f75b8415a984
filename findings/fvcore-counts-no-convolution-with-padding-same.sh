#!/usr/bin/env bash
# fvcore counts no multiplication in a convolution with padding="same".
#
# Expected: the same number as with padding=1, which for a kernel of 3 x 3 is the same layer.
# Happens: 0. The string makes another operator in the trace, aten::_convolution_mode, for which fvcore has no
#   formula; it says so in a log line among those of additions and activations, and the total is too small.
# Hurts: networks written with padding="same" (ported from Keras, ConvNeXt-like blocks, audio): tables and searches
#   that use fvcore take their main cost for nothing.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1 numpy==2.4.6 fvcore==0.1.5.post20221221
cat > "$work/check.py" <<'PY'
import logging
import sys

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

logging.disable(logging.WARNING)
print("torch", torch.__version__)
x = torch.ones(1, 3, 8, 8)
found = {}
for padding in (1, "same", "valid", 0):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=padding), nn.Flatten()).eval()
    found[padding] = FlopCountAnalysis(network, x).total()
    print(f"padding={padding!r}: {found[padding]} multiplications")
as_before = found == {1: 3 * 8 * 9 * 64, "same": 0, "valid": 0, 0: 3 * 8 * 9 * 36}
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
