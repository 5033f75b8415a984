#!/usr/bin/env bash
# KFP SDK: dsl.If compares with a text that holds an apostrophe, and compiles into an expression that cannot be read.
#
# Expected: `dsl.If(name == "l'image")` becomes a condition that compares with that text, escaped, or an error while
#   compiling.
# Happens: the text is put between single quotes as it is: `== 'l'image'`. The compiler is content; kfp.local takes
#   neither branch, If nor Else, and the run succeeds with nothing done. A backslash is likewise not doubled: 'a\b'
#   reads as a and a control character on the cluster.
# Hurts: conditions on names that people write: class labels, titles of data sets, file names. The pipeline was
#   compiled in CI without a word.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
cat > "$work/check.py" <<'PY'
import logging
import os
import sys
import tempfile

import kfp
from kfp import compiler, dsl, local

print("kfp", kfp.__version__)
folder = tempfile.mkdtemp()


@dsl.component(base_image="unused")
def note(text: str, folder: str):
    import pathlib

    pathlib.Path(folder, text).write_text("")


def outcome(value):
    """Return the compiled condition and which branches ran for a pipeline that gets the very text."""
    there = tempfile.mkdtemp()

    @dsl.pipeline
    def choose(name: str, there: str):
        with dsl.If(name == value):
            note(text="if", folder=there)
        with dsl.Else():
            note(text="else", folder=there)

    path = os.path.join(folder, "pipeline.yaml")
    compiler.Compiler().compile(choose, path)
    with open(path) as file:
        text = file.read()
    condition = next(line.strip() for line in text.splitlines() if "pipelinechannel--name'] ==" in line)
    choose(name=value, there=there)
    return condition, sorted(os.listdir(there))


os.chdir(folder)
logging.disable(logging.CRITICAL)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="outputs")
found = {}
for value in ("image", "l'image"):
    try:
        condition, branches = outcome(value)
    except RuntimeError as error:
        condition, branches = "", [type(error).__name__]
    found[value] = branches
    print(f"{value!r}: {condition}; ran: {branches}")
sys.exit(0 if found == {"image": ["if"], "l'image": []} else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
