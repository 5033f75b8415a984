#!/usr/bin/env bash
# blosc2 4.14.1's filter TRUNC_PREC takes int32 and int64 for floats and zeroes their low bits.
#
# Expected: the filter reduces the precision of floats; integers are refused, as int16, uint8 and float16 are.
# Happens: only the size of an item counts. Of int32, "keep 8 bits" clears the lower 15 bits, so that every value below
#   32,768 becomes 0; of int64 everything below 2^44. Nothing is said.
# Hurts: stores of mixed arrays with one set of filters: labels, indices, class counts and quantized accumulators come back
#   as zeros, while the float arrays beside them look fine.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 blosc2==4.14.1
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import blosc2
import numpy as np

print("blosc2", version("blosc2"), "numpy", np.__version__)
settings = {"filters": [blosc2.Filter.TRUNC_PREC], "filters_meta": [8]}
EXPECTED = {"float32": "kept", "float64": "kept", "int32": "zeros", "int64": "zeros", "int16": "refused", "float16": "refused"}
changed = []
for kind, expected in EXPECTED.items():
    given = np.linspace(0, 30_000, 1000).astype(kind)
    try:
        back = blosc2.asarray(given, cparams=settings)[:].astype(np.float64)
        near = np.allclose(back, given.astype(np.float64), rtol=2**-7)
        found = "kept" if near else "zeros" if not back.any() else "something else"
    except RuntimeError:
        found = "refused"
    print(f"{kind}: 1,000 values up to 30,000 with 8 bits: {found}")
    if found != expected:
        changed.append(kind)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
