#!/usr/bin/env bash
# Integers that hyperopt (`hp.uniformint`) and nevergrad (`Scalar(lower, upper).set_integer_casting()`) draw uniformly are the
# two ends of the range half as often as any other.
#
# Expected: of [0, 4], each of the five integers in a fifth of the draws.
# Happens: a real number of [0, 4] is drawn and rounded: 0 and 4 get an eighth each, the others a quarter. In [0, 1], which
#   is right, nobody notices; in [1, 3] the middle has half of the draws.
# Hurts: searches of layer counts, bits or batch sizes in small ranges, in which the best is often at an end.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  numpy==2.4.6 hyperopt==0.3.0 nevergrad==1.0.12 setuptools==80.9.0
cat > "$work/check.py" <<'PY'
import collections
import sys
from importlib.metadata import version

import nevergrad
import numpy as np
from hyperopt import hp
from hyperopt.pyll.stochastic import sample

DRAWS = 8000
rng, space = np.random.default_rng(0), hp.uniformint("x", 0, 4)
scalar = nevergrad.p.Scalar(lower=0, upper=4).set_integer_casting()
scalar.random_state.seed(0)
drawn = {
    "hyperopt": [int(sample(space, rng=rng)) for _ in range(DRAWS)],
    "nevergrad": [scalar.sample().value for _ in range(DRAWS)],
}
changed = []
for name, values in drawn.items():
    counts = collections.Counter(values)
    print(name, version(name), {value: round(counts[value] / DRAWS, 3) for value in range(5)})
    ends, middle = (counts[0] + counts[4]) / 2, (counts[1] + counts[2] + counts[3]) / 3
    if not 0.4 < ends / middle < 0.6:
        changed.append(name)
sys.exit(f"the behaviour has changed: {', '.join(changed)}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
