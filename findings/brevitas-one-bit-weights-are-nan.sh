#!/usr/bin/env bash
# brevitas: weight_bit_width=1 builds a layer whose weights are all NaN, without an error.
#
# Expected: two levels, or a refusal that names the quantizer for binary weights (SignedBinaryWeightPerTensorConst).
# Happens: the default quantizer has a narrow range of 2^(1-1) - 1 = 0 levels at either side, divides by it, and returns a scale of
#   infinity and weights of NaN. 2 bits give -1, 0, 1, as documented. QuantIdentity with one bit gives two levels, of which one is
#   zero.
# Hurts: searches over bit widths per layer that begin at 1: trials end with NaN at the first batch, and nothing names the layer.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir brevitas==0.13.4 torch==2.14.1
cat > "$work/check.py" <<'PY'
import sys
import warnings

warnings.filterwarnings("ignore")
import brevitas
import brevitas.nn as qnn
import torch

torch.manual_seed(0)
print("brevitas", brevitas.__version__, "torch", torch.__version__)
found = {}
for bits in (1, 2, 3):
    layer = qnn.QuantLinear(64, 8, bias=False, weight_bit_width=bits)
    weight = layer.quant_weight()
    levels = (weight.value / weight.scale).round().unique().tolist()
    nothing = weight.value.isnan().all().item()
    print(f"{bits} bits: scale {float(weight.scale):.3g}, {'NaN' if nothing else levels}")
    found[bits] = "NaN" if nothing and weight.scale.isinf().all() else sorted(levels)
same = found == {1: "NaN", 2: [-1, 0, 1], 3: [-3, -2, -1, 0, 1, 2, 3]}
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
