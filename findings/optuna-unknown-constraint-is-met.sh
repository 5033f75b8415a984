#!/usr/bin/env bash
# In Optuna 5 a trial that reports no value of a constraint, or only one of two, counts as feasible and becomes the best.
#
# Expected: a study whose trials have constraints does not choose one of which it is unknown whether they are met.
# Happens: feasible means that no reported value is above 0, so a trial without values is feasible: `best_trial` and, with
#   several objectives, `best_trials` are the ones that could not be measured, or were added from an earlier study.
# Hurts: searches that start from earlier trials (`add_trial`), and those in which the measurement of a size or a latency
#   sometimes fails.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
print("optuna", optuna.__version__)
SPACE = {"x": optuna.distributions.FloatDistribution(0, 1)}
GIVEN = [  # the objective, and the constraints: met where not above 0
    (0.5, {"size": -1.0, "latency": -1.0}),
    (0.3, {"size": 1.0, "latency": -1.0}),
    (0.2, {"size": -1.0}),
    (0.1, None),
]
found = []
for objectives in (1, 2):
    study = optuna.create_study(directions=["minimize"] * objectives)
    for value, constraints in GIVEN:
        trial = optuna.trial.create_trial(
            params={"x": value}, distributions=SPACE, values=[value] * objectives, constraints=constraints
        )
        study.add_trial(trial)
        best = [trial.number for trial in study.best_trials]
        print(f"{objectives} objective(s), after constraints {constraints}: best {best}")
        found.append(best)
sys.exit(0 if found == [[0], [0], [2], [3]] * 2 else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
