#!/usr/bin/env bash
# torchao's 8-bit weights and activations have no scale below 1.2e-7: smaller values get few integers, or only zero.
#
# Expected: the scale of a group of values is their largest divided by 127, whatever its size; the error relative to the
#   values is that of 8 bits. optimum-quanto computes it so.
# Happens: scales are held above float32's epsilon. Weights of at most 1e-5 are rounded to 84 levels a side instead of 127,
#   those of 1e-6 to 8, and all below 6e-8 become zero. Activations, likewise.
# Hurts: networks with small scales in front of a norm (layer scales of 1e-5 and 1e-6 folded into the layer before,
#   weights of scale-invariant layers that decayed): such layers return zeros, or their bias, without a warning.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1 numpy==2.4.6 \
  torchao==0.18.0 optimum-quanto==0.2.7
cat > "$work/check.py" <<'PY'
import copy
import logging
import sys
import warnings
from importlib.metadata import version

import torch
from torch import nn

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
from optimum.quanto import freeze, qint8, quantize
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchao", "optimum-quanto")))
torch.manual_seed(0)
WEIGHT = torch.randn(16, 64)
WEIGHT /= WEIGHT.abs().max()


def weights_of_torchao(network):
    quantize_(network, Int8WeightOnlyConfig())


def activations_of_torchao(network):
    quantize_(network, Int8DynamicActivationInt8WeightConfig())


def weights_of_quanto(network):
    quantize(network, weights=qint8)
    freeze(network)


def error(change, weight, inputs):
    """Return the error of the outputs relative to the outputs."""
    network = nn.Sequential(nn.Linear(64, 16, bias=False))
    network[0].weight.data = weight.clone()
    expected = network(inputs)
    changed = copy.deepcopy(network)
    change(changed)
    return float((changed(inputs) - expected).norm() / expected.norm())


table = {}
with torch.no_grad():
    for size in (1.0, 1e-4, 1e-5, 1e-6, 1e-8):
        table[size] = (
            error(weights_of_torchao, size * WEIGHT, torch.eye(64)),
            error(activations_of_torchao, WEIGHT, size * torch.randn(8, 64)),
            error(weights_of_quanto, size * WEIGHT, torch.eye(64)),
        )
        of_weights, of_activations, of_quanto = table[size]
        print(
            f"largest value {size:g}: relative error {of_weights:.4f} (torchao, weights), {of_activations:.4f} (torchao,"
            f" activations), {of_quanto:.4f} (quanto, weights)"
        )
ordinary = all(max(table[size]) < 0.02 for size in (1.0, 1e-4)) and all(row[2] < 0.02 for row in table.values())
floored = table[1e-6][0] > 0.1 and table[1e-8][0] == 1.0 and table[1e-8][1] == 1.0
sys.exit(0 if ordinary and floored else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
