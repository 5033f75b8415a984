#!/usr/bin/env bash
# kfp.local: a condition that compares a float with a whole-number literal takes neither branch, and the run succeeds.
#
# Expected: `dsl.If(rate > 1)` with rate 2.5 runs its branch, or the run fails; `dsl.Else()` runs otherwise.
# Happens: the compiler writes the literal as `double(1)`, a function that kfp.local's evaluator does not know; the failed
#   evaluation counts as false for the If and for the Else (a warning among the log's lines), and the run succeeds with
#   nothing done. With `rate > 1.0` the branch runs.
# Hurts: who gates a step ("publish if the accuracy is above 1 %"): the gate is silently shut, in local tests too.
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
def touch(name: str):
    import pathlib

    pathlib.Path(name).touch()


def made_by(threshold):
    @dsl.pipeline(name="gate")
    def gate(rate: float, directory: str):
        with dsl.If(rate > threshold):
            touch(name=f"{sys.argv[1]}/then-{threshold}")
        with dsl.Else():
            touch(name=f"{sys.argv[1]}/else-{threshold}")

    gate(rate=2.5, directory=".")
    return sorted(path.name for path in pathlib.Path(".").glob(f"*-{threshold}"))


print("kfp", kfp.__version__)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=f"{sys.argv[1]}/root")
found = {repr(threshold): made_by(threshold) for threshold in (1.0, 1)}
print(found)
sys.exit(0 if found == {"1.0": ["then-1.0"], "1": []} else "the behaviour has changed")
PY
PATH="$work/venv/bin:$PATH" "$work/venv/bin/python" "$work/check.py" "$work" 2>&1 | grep -v Warning
exit "${PIPESTATUS[0]}"
