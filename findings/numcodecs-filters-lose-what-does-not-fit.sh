#!/usr/bin/env bash
# numcodecs' filters for arrays in chunks lose values that do not fit, without a word: 1300 comes back as 1044, "new" as
# "".
#
# Expected: an error, or at least the nearest value that fits, when FixedScaleOffset, Delta, AsType or Categorize is given
#   a number or a label that the stored type or list cannot hold.
# Happens: numbers wrap around: with offset 1000 in uint8, 990 is read as 1246, 1300 as 1044 (on x86-64). A difference of
#   -400 in int8 makes all later numbers wrong too. A label that is not in the list is the empty string.
# Hurts: who chose the filters by the first chunks of a data set (zarr writes them into the metadata): later chunks are
#   damaged as they are written, and nothing can bring them back.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 numcodecs==0.16.6
cat > "$work/check.py" <<'PY'
import sys

import numcodecs
import numpy as np

print("numcodecs", numcodecs.__version__)
CASES = [
    (numcodecs.FixedScaleOffset(1000, 1, "<f4", "u1"), np.array([1000, 1010, 1300, 990], np.float32)),
    (numcodecs.Delta("<i2", "i1"), np.array([0, 100, -300, -299, -298], np.int16)),
    (numcodecs.AsType("i1", "<i2"), np.array([5, -1, 300], np.int16)),
    (numcodecs.Categorize(["cat", "dog"], object), np.array(["dog", "new", "cat"], object)),
]
EXPECTED = [[1000, 1010, 1044, 1246], [0, 100, 212, 213, 214], [5, -1, 44], ["dog", "", "cat"]]
changed = []
for (codec, values), expected in zip(CASES, EXPECTED, strict=True):
    read = codec.decode(codec.encode(values)).tolist()
    print(f"{type(codec).__name__}: written {values.tolist()}, read {read}")
    if read != expected:
        changed.append(type(codec).__name__)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
