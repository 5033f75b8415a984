#!/usr/bin/env bash
# Syne Tune's `qrandint(1, 10, 3)` and hyperopt's `quniform("x", 1, 10, 3)` draw 0, below the lower end that was given;
# Syne Tune's `qlograndint(1, 64, 8)` draws it most often of all.
#
# Expected: values of the range only. FLAML's functions of the same names keep to it (3, 6, 9), and Optuna's `step` counts
#   from the lower end (1, 4, 7, 10). Syne Tune's quniform refuses ends that are no multiples.
# Happens: a number of the range is rounded to a multiple of q and not put back: 0 comes in a tenth of the draws of
#   qrandint, and in a third of those of qlograndint, a scale on which there is no 0.
# Hurts: layer widths, batch sizes and numbers of epochs in steps: a trial with 0 channels fails late, or trains nothing
#   and is counted as a result.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 hyperopt==0.3.0 setuptools==80.9.0 syne-tune==0.16.0 flaml==2.8.0 optuna==5.0.0
cat > "$work/check.py" <<'PY'
import collections
import logging
import sys
from importlib.metadata import version

import numpy as np

logging.disable(logging.WARNING)
import optuna
from flaml import tune
from hyperopt import hp
from hyperopt.pyll.stochastic import sample
from syne_tune.config_space import qlograndint, qrandint

DRAWS = 1500
rng, state = np.random.default_rng(0), np.random.RandomState(0)
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
space = hp.quniform("x", 1, 10, 3)
drawn = {
    "syne-tune qrandint": [qrandint(1, 10, 3).sample(random_state=state) for _ in range(DRAWS)],
    "syne-tune qlograndint": [qlograndint(1, 64, 8).sample(random_state=state) for _ in range(DRAWS)],
    "hyperopt quniform": [sample(space, rng=rng) for _ in range(DRAWS)],
    "flaml qrandint": [tune.qrandint(1, 10, 3).sample(random_state=state) for _ in range(DRAWS)],
    "optuna step": [study.ask().suggest_int("x", 1, 10, step=3) for _ in range(DRAWS)],
}
shares = {}
for name, values in drawn.items():
    counts = collections.Counter(int(value) for value in values)
    shares[name] = counts[0] / DRAWS
    print(name, version(name.split()[0]), dict(sorted(counts.items())))
outside = {"syne-tune qrandint": (0.05, 0.15), "syne-tune qlograndint": (0.25, 0.45), "hyperopt quniform": (0.02, 0.1)}
changed = [name for name, share in shares.items() if not np.clip(share, *outside.get(name, (0, 0))) == share]
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
