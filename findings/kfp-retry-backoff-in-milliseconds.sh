#!/usr/bin/env bash
# KFP SDK: a retry's backoff of "500ms" is written as 500 minutes, and "2 months" as two minutes.
#
# Expected: milliseconds as Kubernetes and Go write them, or an error for a unit that is not known, as "1us" and "1.5s"
#   give.
# Happens: of the unit only the first letter counts, and "m" is minutes: "500ms" becomes 30000s in the compiled pipeline.
#   The default `backoff_max_duration`, which is to keep such waits within bounds, is 3600s.
# Hurts: retries of steps that read from a busy object store or wait for a lock: the run seems to hang after the first
#   failure.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
cat > "$work/check.py" <<'PY'
import pathlib
import sys
import tempfile

import kfp
import yaml
from kfp import compiler, dsl

print("kfp", kfp.__version__)


@dsl.component(base_image="python:3.12")
def step():
    pass


def compiled(duration):
    """Return the backoff that a compiled pipeline has for a duration, or the error of set_retry."""

    try:

        @dsl.pipeline
        def retried():
            step().set_retry(2, backoff_duration=duration)

    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "retried.yaml")
        compiler.Compiler().compile(retried, str(path))
        tasks = yaml.safe_load(path.read_text())["root"]["dag"]["tasks"]
    return tasks["step"]["retryPolicy"]["backoffDuration"]


DURATIONS = ("30s", "1m", "500ms", "10 milliseconds", "2 months", "1us", "1.5s")
found = {duration: compiled(duration) for duration in DURATIONS}
for duration, backoff in found.items():
    print(f"{duration!r} is {backoff}")
EXPECTED = {"30s": "30s", "1m": "60s", "500ms": "30000s", "10 milliseconds": "600s", "2 months": "120s"}
same = all(found[duration] == backoff for duration, backoff in EXPECTED.items())
same = same and all(found[duration].startswith("ValueError") for duration in ("1us", "1.5s"))
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
