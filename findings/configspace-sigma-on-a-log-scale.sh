#!/usr/bin/env bash
# ConfigSpace: a normal hyperparameter on a log scale spreads by |log(sigma)|: 0.01 and 100 draw the same, 1 a constant.
#
# Expected: a larger sigma spreads the draws more. NormalFloatHyperparameter says that sigma is the standard deviation.
# Happens: with log=True sigma goes through the logarithm, and its sign is lost. For mu 0.01 in [1e-4, 1], the tenth and
#   the ninetieth percentile are 0.0003 and 0.34 for sigma 0.01 and for 100 alike, and 0.01 and 0.01 for sigma 1: a
#   constant.
# Hurts: priors of learning rates ("around 0.01, a factor of e either way"): the search never leaves the prior's mean.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ConfigSpace==1.2.2
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from ConfigSpace import ConfigurationSpace, NormalFloatHyperparameter

print("ConfigSpace", version("ConfigSpace"))
spreads = {}
for sigma in (0.01, 0.1, 1.0, 10.0, 100.0):
    space = ConfigurationSpace(seed=0)
    space.add(NormalFloatHyperparameter("rate", mu=0.01, sigma=sigma, lower=1e-4, upper=1, log=True))
    low, high = np.quantile([each["rate"] for each in space.sample_configuration(2000)], [0.1, 0.9])
    spreads[sigma] = high / low
    print(f"sigma {sigma}: tenth percentile {low:.5f}, ninetieth {high:.5f}")
same = np.isclose(spreads[0.01], spreads[100], rtol=0.05) and np.isclose(spreads[0.1], spreads[10], rtol=0.05)
sys.exit(0 if same and spreads[1.0] < 1.001 and spreads[0.01] > 100 else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
