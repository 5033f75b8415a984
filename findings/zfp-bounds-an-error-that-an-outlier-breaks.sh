#!/usr/bin/env bash
# zfpy 1.0.1 with a tolerance exceeds it next to a large value, and turns NaN into an ordinary number.
#
# Expected: "tolerance" bounds the absolute error of every value, and what cannot be kept is refused.
# Happens: values are packed in blocks of four with one exponent. Beside 1e20 the values 0.27 to 0.4 come back as 0,
#   400 times the tolerance of 0.001 away; a NaN comes back as -0.99994. Nothing is said. The lossless mode, without a
#   parameter, keeps both.
# Hurts: checkpoints and optimizer states: an unused channel whose running variance grew, or a padding value of 1e20,
#   wipes out its neighbours; a diverged run is stored as a sane one.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 zfpy==1.0.1.post0
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import zfpy

print("zfpy", version("zfpy"), "numpy", np.__version__)
TOLERANCE = 1e-3
values = np.linspace(0, 1, 16, dtype=np.float32)
CASES = {"plain": values, "1e20 at 7": np.where(np.arange(16) == 7, 1e20, values).astype(np.float32)}
CASES["NaN at 7"] = np.where(np.arange(16) == 7, np.nan, values).astype(np.float32)
changed = []
for name, given in CASES.items():
    exact = zfpy.decompress_numpy(zfpy.compress_numpy(given))
    back = zfpy.decompress_numpy(zfpy.compress_numpy(given, tolerance=TOLERANCE))
    others = np.arange(16) != 7
    worst = float(np.abs(back[others] - given[others]).max())
    print(f"{name}: largest error of the other values {worst:.5f}; at 7 is {back[7]}; lossless mode exact:",
          np.array_equal(exact, given, equal_nan=True))
    right = {"plain": worst <= TOLERANCE, "1e20 at 7": worst > 0.3, "NaN at 7": bool(np.isfinite(back[7]))}
    if not right[name]:
        changed.append(name)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
