#!/usr/bin/env bash
# kfp.local: after a failed task, the tasks of the root graph that do not need it are skipped, those of a nested pipeline run.
#
# Expected: one rule. Either a failure ends the run at once, or what does not depend on it still runs, at any depth.
# Happens: with the same two independent tasks, the first of which fails, the second is not run where they are tasks of the
#   root pipeline, and is run where they are tasks of a pipeline that the root pipeline calls.
# Hurts: who tests a pipeline locally before wrapping it into another one: hours of training go on after a first step has
#   failed, side effects (a model that is published) happen or not by the depth of the graph, and the error comes last.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
cat > "$work/check.py" <<'PY'
import os
import pathlib
import sys

import kfp
from kfp import dsl, local

os.chdir(sys.argv[1])


@dsl.component(base_image="python:3", install_kfp_package=False, packages_to_install=[])
def fail():
    raise RuntimeError("on purpose")


@dsl.component(base_image="python:3", install_kfp_package=False, packages_to_install=[])
def touch(path: str):
    import pathlib

    pathlib.Path(path).touch()


@dsl.pipeline(name="two")
def two(path: str):
    fail()
    touch(path=path)


@dsl.pipeline(name="nested")
def nested(path: str):
    two(path=path)


def second_ran(pipeline):
    path = pathlib.Path(sys.argv[1]) / f"ran-in-{pipeline.name}"
    try:
        pipeline(path=str(path))
    except RuntimeError:
        return path.exists()
    sys.exit("the run of a pipeline with a failed task has succeeded")


print("kfp", kfp.__version__)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=f"{sys.argv[1]}/root", raise_on_error=True)
found = {"root": second_ran(two), "nested": second_ran(nested)}
print("the independent second task ran:", found)
sys.exit(0 if found == {"root": False, "nested": True} else "the behaviour has changed")
PY
PATH="$work/venv/bin:$PATH" "$work/venv/bin/python" "$work/check.py" "$work" 2>&1 | grep -E '^(kfp|the )'
exit "${PIPESTATUS[0]}"
