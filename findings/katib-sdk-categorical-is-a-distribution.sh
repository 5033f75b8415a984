#!/usr/bin/env bash
# katib.search.categorical of kubeflow-katib 0.19.0 writes its list into the field "distribution".
#
# Expected: a parameter whose feasibleSpace.list holds the choices.
# Happens: the list is passed by position, and since 0.19 the first field of V1beta1FeasibleSpace is "distribution", so that
#   "list" stays empty. search.double and search.int name their fields and are right.
# Hurts: every KatibClient.tune with a categorical hyperparameter: the Experiment is refused by the API server, or a lenient
#   client drops the field and the search has no choices. The way out: set feasible_space.list by hand.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kubeflow-katib==0.19.0
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

from kubeflow import katib

print("kubeflow-katib", version("kubeflow-katib"))
space = katib.search.categorical(["sgd", "adam"]).feasible_space
print("list:", space.list, "distribution:", space.distribution)
print("double:", katib.search.double(min=0.1, max=1).feasible_space.to_dict())
if space.list is not None or space.distribution != ["sgd", "adam"]:
    sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
