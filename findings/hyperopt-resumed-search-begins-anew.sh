#!/usr/bin/env bash
# hyperopt's fmin, called again with the Trials of an earlier call to go on with a search, tries the same points again.
#
# Expected: `fmin(..., max_evals=8, trials=trials, rstate=default_rng(7))` after the same with max_evals=4 goes on with four
#   new points, since the trials are there, and seed and history are what a search depends on.
# Happens: the seed of each proposal is drawn from `rstate` alone, which begins anew; random search tries the first four
#   points a second time, and so does TPE while it is in its random phase (20 trials by default).
# Hurts: searches that are restarted after an interruption or extended by more trials, with the seed in their settings.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 hyperopt==0.3.0 setuptools==80.9.0
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from hyperopt import Trials, fmin, hp, rand, tpe

print("hyperopt", version("hyperopt"))
repeated = []
for algorithm in (rand, tpe):
    trials, tried = Trials(), []

    def objective(x, tried=tried):
        tried.append(round(x, 6))
        return x * x

    for evaluations in (4, 8):
        fmin(
            objective,
            hp.uniform("x", -1, 1),
            algo=algorithm.suggest,
            max_evals=evaluations,
            trials=trials,
            rstate=np.random.default_rng(7),
            show_progressbar=False,
        )
    print(f"{algorithm.__name__}: first {tried[:4]}, then {tried[4:]}")
    repeated.append(tried[:4] == tried[4:])
sys.exit(0 if all(repeated) else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
