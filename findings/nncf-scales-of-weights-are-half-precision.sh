#!/usr/bin/env bash
# nncf.compress_weights of a float32 network keeps the scales of its int8 rows in float16, and small rows lose most of their levels.
#
# Expected: weights times 2^-17 come out as the same integers with a scale times 2^-17, at the same relative error: float32 holds
#   both.
# Happens: the scale is stored in float16, whose steps are coarse below 6e-5. Rows with a largest weight of 3e-5 have an error more
#   than ten times as large as the same rows a power of two larger; below 1e-9 all is zero; rows of 4 million become NaN.
# Hurts: layers whose size sits in their input or in a norm behind them, and heads that have hardly been trained; a norm behind the
#   layer would have made the scale meaningless, but not the lost levels.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir nncf==3.4.0 torch==2.14.1
cat > "$work/check.py" <<'PY'
import sys

import nncf
import torch

torch.manual_seed(0)
nncf.set_log_level(50)
print("nncf", nncf.__version__, "torch", torch.__version__)


def rows(weight, mode, **options):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    ones = torch.eye(weight.shape[1])
    compressed = nncf.compress_weights(layer, dataset=nncf.Dataset([ones]), mode=mode, **options)
    with torch.no_grad():
        return compressed(ones).T


def error(power, weights):
    found = rows(weights * 2.0**power, nncf.CompressWeightsMode.INT8_ASYM) / 2.0**power
    return float((found - weights).norm() / weights.norm())


weights = torch.randn(8, 128)
errors = {power: error(power, weights) for power in (0, -7, -17, -34, 20)}
for power, value in errors.items():
    print(f"largest weight {float(weights.abs().max()) * 2.0**power:.2g}: relative error {value:.4f}")
same = (
    errors[0] == errors[-7] < 0.01
    and errors[-17] > 10 * errors[0]
    and errors[-34] == 1
    and errors[20] != errors[20]
)
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
