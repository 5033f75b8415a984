#!/usr/bin/env bash
# kfp: every setter of a task (set_env_variable, set_cpu_request, ...) reads the source of every frame of the call stack.
#
# Expected: a setter sets a field; a pipeline with 300 of them compiles in a second.
# Happens: `_ensure_container_spec_exists` asks inspect.stack() for its caller's name before it knows of an error.
#   inspect.stack() finds the module and the source lines of all frames, and looks through sys.modules for each: 50 ms a
#   call with 1,700 modules imported, more in a process that has imported torch or in a deep stack such as pytest's.
# Hurts: 60 % of the time of compiling three pipelines of 40 tasks each (14 s of 22 under a profiler).
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir kfp==2.17.0
cat > "$work/check.py" <<'PY'
import inspect
import sys

import kfp
from kfp import dsl

looked_up = 0
findsource = inspect.findsource


def counted(code):
    global looked_up
    looked_up += 1
    return findsource(code)


@dsl.container_component
def step():
    return dsl.ContainerSpec(image="debian", command=["true"])


@dsl.pipeline
def one_variable():
    inspect.findsource = counted
    step().set_env_variable("NAME", "value")
    inspect.findsource = findsource


print("kfp", kfp.__version__)
print("sources looked up by one set_env_variable:", looked_up)
sys.exit(0 if looked_up >= 5 else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
