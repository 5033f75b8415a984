#!/usr/bin/env bash
# KFP SDK: `dsl.Input[dsl.Model] | None` is an optional input under kfp.local and in the compiler, and kills the step on a
# cluster as soon as an artifact is given.
#
# Expected: both spellings of an optional artifact, `= None` alone and `| None = None`, work wherever the pipeline runs:
#   the compiler takes both, and kfp.local runs both.
# Happens: the cluster's driver hands artifacts on without a schemaTitle. The executor then makes the object of the
#   annotation's class, which is typing.Union: TypeError, before the component's first line. Without an artifact it passes.
# Hurts: who tests components with kfp.local and deploys them: every test is green, every run fails.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
cat > "$work/check.py" <<'PY'
import json
import pathlib
import sys

import kfp
from kfp import dsl
from kfp.dsl import executor


def by_union(metrics: dsl.Output[dsl.Metrics], model: dsl.Input[dsl.Model] | None = None):
    print("by_union:", type(model).__name__)


def by_default(metrics: dsl.Output[dsl.Metrics], model: dsl.Input[dsl.Model] = None):
    print("by_default:", type(model).__name__)


def run(function, schema, given=True):
    work = pathlib.Path(sys.argv[1])
    artifact = {"name": "m", "uri": str(work / "m"), "type": schema, "metadata": {}}
    output = {"name": "metrics", "uri": str(work / "metrics"), "type": {"schemaTitle": "system.Metrics"}, "metadata": {}}
    content = {
        "inputs": {"artifacts": {"model": {"artifacts": [artifact]}} if given else {}},
        "outputs": {"artifacts": {"metrics": {"artifacts": [output]}}, "outputFile": str(work / "out.json")},
    }
    try:
        executor.Executor(executor_input=json.loads(json.dumps(content)), function_to_execute=function).execute()
    except TypeError as error:
        return f"TypeError: {error}"
    return "runs"


print("kfp", kfp.__version__, "on Python", sys.version.split()[0])
title, driver = {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}, {"instanceSchema": ""}
found = {
    (function.__name__, form): run(function, schema, given)
    for function in (by_union, by_default)
    for form, schema, given in (("kfp.local", title, True), ("cluster", driver, True), ("left out", driver, False))
}
for key, outcome in found.items():
    print(*key, "->", outcome)
expected = {key: "runs" for key in found} | {("by_union", "cluster"): "TypeError: Cannot instantiate typing.Union"}
sys.exit(0 if found == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work"
