#!/usr/bin/env bash
# scipy.stats.qmc.Sobol.fast_forward(0) raises OverflowError on a new sequence, and on one that has begun it does nothing.
#
# Expected: going on by no points leaves the sequence where it is, as `reset()` and `fast_forward(n)` for n > 0 suggest.
# Happens: on a new engine the first point counts apart, n - 1 = -1 reaches an unsigned integer: "can't convert negative
#   value to npy_uint32".
# Hurts: who splits a sequence over workers or resumes one: `fast_forward(rank * share)` fails for rank 0 alone.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scipy==1.17.1 numpy==2.3.5
cat > "$work/check.py" <<'PY'
import sys

import scipy
from scipy.stats import qmc

print("scipy", scipy.__version__)
begun = qmc.Sobol(2, scramble=False)
begun.random(2)
begun.fast_forward(0)
print("after two points:", begun.random(1).tolist())
try:
    qmc.Sobol(2, scramble=False).fast_forward(0)
except OverflowError as error:
    print("new sequence: OverflowError:", error)
    sys.exit(0 if "negative" in str(error) else "another error")
sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
