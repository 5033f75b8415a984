#!/usr/bin/env bash
# fpzip 1.2.5 counts sign and exponent in "precision", so that precision=8 halves 1.0 and makes NaN a number.
#
# Expected: 8 bits of precision, a relative error near 2^-8, as "keep 8 bits of the mantissa" in other codecs.
# Happens: the 8 leading bits of the float are kept: the sign and 7 of the 8 bits of the exponent. 1.0 becomes 0.5, 3.14 becomes
#   2, infinity and NaN become 1.7e38. No warning; 9 bits are the first that keep powers of two.
# Hurts: who lowers the precision of weights step by step: the jump from 9 to 8 bits is not a bit of rounding but values that
#   are up to half as large, all towards zero.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 fpzip==1.2.5
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import fpzip
import numpy as np

print("fpzip", version("fpzip"), "numpy", np.__version__)
given = np.array([1.0, 3.14, -2.5, np.inf, np.nan], np.float32)
found = {}
for precision in (16, 9, 8):
    packed = fpzip.compress(given, precision=precision, order="C")
    found[precision] = fpzip.decompress(packed, order="C").ravel()
    print(f"precision {precision}: {given.tolist()} come back as {found[precision].tolist()}")
if found[9][0] != 1 or found[8][0] != 0.5 or found[8][1] != 2 or not np.isfinite(found[8]).all():
    sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
