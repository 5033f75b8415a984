#!/usr/bin/env bash
# A design whose second objective is NaN drives all real designs out of the Pareto front, in moocore, paretoset, pymoo and
# DEAP alike, if it is best in its first objective.
#
# Expected: an unknown value proves nothing. Such a design is left out, or beside the real ones, or refused.
# Happens: "better in one and worse in none" is asked by comparisons, which are all false for NaN, so one design of which
#   half is known dominates every other. moocore then says that the front has no hypervolume, where all designs together
#   have 11.
# Hurts: searches with several objectives in which one measurement fails (a latency, a size): everything found is lost.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  numpy==2.4.6 moocore==0.3.2 paretoset==1.2.5 pymoo==0.6.2 deap==1.4.4
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

import moocore
import numpy as np
from deap import base, tools
from paretoset import paretoset
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

REAL = np.array([[1.0, 4.0], [2.0, 2.0], [4.0, 1.0]])  # smaller is better; each is best somewhere
HALF = np.array([[0.5, np.nan]])


class Minimised(base.Fitness):
    weights = (-1.0, -1.0)


class Design:
    def __init__(self, number, values):
        self.number, self.fitness = number, Minimised(tuple(values))


def by_deap(costs):
    first, *_ = tools.sortNondominated([Design(*pair) for pair in enumerate(costs)], len(costs))
    return sorted(design.number for design in first)


FRONTS = {
    "moocore": lambda costs: np.flatnonzero(moocore.is_nondominated(costs)).tolist(),
    "paretoset": lambda costs: np.flatnonzero(paretoset(costs)).tolist(),
    "pymoo": lambda costs: sorted(NonDominatedSorting().do(costs, only_non_dominated_front=True).tolist()),
    "deap": by_deap,
}
both, changed = np.vstack([REAL, HALF]), []
for name, front in FRONTS.items():
    print(f"{name} {version(name)}: of the real designs {front(REAL)}, with the half-known one {front(both)}")
    if front(REAL) != [0, 1, 2] or front(both) != [3]:
        changed.append(name)
volumes = [float(moocore.hypervolume(costs, ref=[5, 5])) for costs in (both, both[moocore.is_nondominated(both)])]
print("moocore's hypervolume of all designs and of its front:", *volumes)
if volumes != [11.0, 0.0]:
    changed.append("moocore's hypervolume")
sys.exit(f"the behaviour has changed: {', '.join(changed)}" if changed else 0)
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
