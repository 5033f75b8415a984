#!/usr/bin/env bash
# numpy does not sort arrays of ml_dtypes that hold a NaN: np.sort of bfloat16 [NaN, 3, 1, NaN, 2] is [NaN, 1, 3, NaN, 2].
#
# Expected: the numbers in order and the NaN last, as numpy does with float16, float32 and float64.
# Happens: for bfloat16 and the float8 types "less than" is false both ways for a NaN, so it divides the array into parts
#   that are sorted apart. np.unique keeps duplicates then.
# Hurts: magnitude thresholds and percentiles taken from weights or activations in their own type: with one NaN the k-th
#   number of the sorted array is another number, not NaN, and nothing is raised.
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
values = [np.nan, 3, 1, np.nan, 2, 3]
changed = []
for dtype in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
    ordered = np.sort(np.array(values, dtype)).astype(np.float32)
    print(f"{np.dtype(dtype).name}: {ordered}, unique {np.unique(np.array(values, dtype)).astype(np.float32)}")
    right = np.array_equal(ordered, np.sort(np.array(values, np.float32)), equal_nan=True)
    numbers = ordered[~np.isnan(ordered)]
    if right != (dtype is np.float16) or (np.diff(numbers) >= 0).all() != right:
        changed.append(np.dtype(dtype).name)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
