#!/usr/bin/env bash
# The mean of a thousand times 1.01 in ml_dtypes' bfloat16 is 0.51, and that of twenty ones in int4 is 0.
#
# Expected: numpy adds float16 up by halves (the mean even in float32) and small integers in 64 bits; types that are made
#   for numpy with fewer bits are added with more care, not less.
# Happens: sums run in the type itself, one number after the other: bfloat16 stops at 512, float8e4m3fn at 16, and int4
#   wraps around, so twenty ones add up to 4. mean() divides that. `dtype=np.float32` in the call makes all of them right.
# Hurts: statistics of weights and activations that were loaded in their stored type: norms, means for bias correction,
#   and distances. Short arrays in tests are right.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0
cat > "$work/check.py" <<'PY'
import sys

import ml_dtypes
import numpy as np

print("numpy", np.__version__, "ml_dtypes", ml_dtypes.__version__)
CASES = [  # type, value, how many, and whether the mean is far off
    (np.float16, 1.01, 1000, False),
    (ml_dtypes.bfloat16, 1.01, 1000, True),
    (ml_dtypes.float8_e4m3fn, 1, 1000, True),
    (np.int8, 1, 1000, False),
    (ml_dtypes.int4, 1, 20, True),
]
changed = []
for dtype, value, count, wrong in CASES:
    array = np.full(count, value, dtype)
    mean, wide = float(array.mean()), float(array.mean(dtype=np.float32))
    print(f"{np.dtype(dtype).name}: {count} times {value}: sum {array.sum()}, mean {mean:.4f}, in float32 {wide:.4f}")
    if (abs(mean - value) > 0.4) != wrong or abs(wide - value) > 0.01:
        changed.append(np.dtype(dtype).name)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
