#!/usr/bin/env bash
# KatibClient.tune of kubeflow-katib 0.19.0 empties the dictionary of parameters that it is given.
#
# Expected: arguments stay as they are, so that a notebook's cell can be run again under another name.
# Happens: each search range in the caller's dictionary is replaced by the text "${trialParameters.lr}". A second call with
#   the same dictionary makes an Experiment without a parameter, whose trials all get that text, or nothing.
# Hurts: who repeats a cell, loops over algorithms, or retries after a refused Experiment (the dictionary is emptied before
#   the request is sent): "spec.parameters must be specified" for a search whose parameters stand in the cell above.
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


class Client(katib.KatibClient):
    """A client that keeps the Experiments instead of sending them."""

    def __init__(self):
        self.namespace, self.made = "default", []

    def create_experiment(self, experiment, namespace=None):
        self.made.append([parameter.name for parameter in experiment.spec.parameters])


def objective(parameters):
    print("accuracy=1")


client, ranges = Client(), {"lr": katib.search.double(min=0.1, max=1)}
for name in ("first", "second"):
    client.tune(name=name, objective=objective, parameters=ranges, objective_metric_name="accuracy")
    print(f"{name}: spec.parameters {client.made[-1]}, the caller's dictionary is now {ranges}")
if client.made != [["lr"], []]:
    sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
