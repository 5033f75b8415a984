#!/usr/bin/env bash
# ConfigSpace takes the type of a range from its first end alone: {"momentum": (0, 0.9)} is the integers 0 and 1.
#
# Expected: a float range, as scikit-optimize makes of the same pair, or an error; in no case a value outside of the
#   range.
# Happens: (0, 0.9) becomes UniformInteger [0, 1], whose 1 is above the end given; (0, 1.0) is 0 or 1 and nothing between;
#   (1, 2.5) is 1 or 2. With the ends the other way round in type, (0.0, 1), all is as expected. Nothing is said.
# Hurts: searches over rates, momenta, sparsities: 0 is written where 0.0 was meant, and the search sees the two ends
#   only, or a momentum of 1, which diverges. SMAC and DEHB take such spaces.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ConfigSpace==1.2.2 scikit-optimize==0.10.2
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

from ConfigSpace import ConfigurationSpace
from skopt.space import check_dimension

print("ConfigSpace", version("ConfigSpace"), "scikit-optimize", version("scikit-optimize"))
EXPECTED = [((0, 0.9), {0, 1}), ((0, 1.0), {0, 1}), ((1, 2.5), {1, 2}), ((0.0, 1), None)]  # None: many values
changed = []
for ends, integers in EXPECTED:
    space = ConfigurationSpace({"x": ends}, seed=0)
    drawn = {configuration["x"] for configuration in space.sample_configuration(100)}
    described = drawn if len(drawn) < 10 else f"{len(drawn)} values from {min(drawn):.3f} to {max(drawn):.3f}"
    print(ends, "is", space["x"], "and draws", described, "- skopt:", check_dimension(ends))
    if (drawn if integers else None) != integers or type(check_dimension(ends)).__name__ != "Real":
        changed.append(ends)
sys.exit(f"the behaviour has changed: {changed}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
