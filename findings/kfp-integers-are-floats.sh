#!/usr/bin/env bash
# KFP SDK: an integer parameter above 2^53 becomes another integer, and dsl.If compares it with the one that was
# written.
#
# Expected: `number: int = 9007199254740993` is a Python int on both sides; it arrives as it was written, or is
#   refused.
# Happens: parameters are stored as floats: the default in the compiled pipeline, a constant argument and the value of
#   a component's output are 9007199254740992. A literal in dsl.If is written as text and stays exact, so a parameter
#   is not equal to its own default.
# Hurts: seeds of 64 bits, ids of rows, times in nanoseconds: another seed than the log of the caller says, and a row
#   that does not exist.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
cat > "$work/check.py" <<'PY'
import os
import sys
import tempfile

import kfp
import yaml
from kfp import compiler, dsl

print("kfp", kfp.__version__)
NUMBER = 2**53 + 1


@dsl.component(base_image="unused")
def show(number: int):
    print(number)


@dsl.pipeline
def choose(number: int = NUMBER):
    show(number=NUMBER)
    with dsl.If(number == NUMBER):
        show(number=number)


path = os.path.join(tempfile.mkdtemp(), "pipeline.yaml")
compiler.Compiler().compile(choose, path)
with open(path) as file:
    spec = yaml.safe_load(file)
default = spec["root"]["inputDefinitions"]["parameters"]["number"]["defaultValue"]
tasks = spec["root"]["dag"]["tasks"]
constant = tasks["show"]["inputs"]["parameters"]["number"]["runtimeValue"]["constant"]
condition = tasks["condition-1"]["triggerPolicy"]["condition"]
print(f"written: {NUMBER}; default {default}, constant {constant}\ncondition: {condition}")
as_before = default == constant == 2.0**53 and condition.endswith(f"== {NUMBER}")
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
