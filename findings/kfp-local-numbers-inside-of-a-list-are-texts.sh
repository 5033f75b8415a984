#!/usr/bin/env bash
# kfp.local: a parameter within a list or a dict argument arrives as text, and a whole number as "3.0"; f-strings get
# "3.0", too.
#
# Expected: `task(sizes=[n, 2])` with n = 3 gives the component [3, 2], as `task(n=n)` gives it 3; f"--epochs={n}"
#   reads --epochs=3.
# Happens: ['3.0', 2.0]: the parameter is a placeholder in a string and stays a string, false is 'false', and an
#   integer goes through a float first, so the command line says --epochs=3.0, which int() refuses.
# Hurts: who tests pipelines locally: lists of sizes or rates made of parameters concatenate instead of adding up
#   ('3.0' * 2), bool('false') is true.
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
from kfp import dsl, local

print("kfp", kfp.__version__)


@dsl.component(base_image="unused")
def show(text: str, sizes: list, options: dict) -> str:
    return repr((text, sizes, options))


@dsl.pipeline
def pipeline(n: int = 3, wide: bool = False) -> str:
    return show(text=f"--epochs={n}", sizes=[n, 2], options={"wide": wide}).output


os.chdir(tempfile.mkdtemp())
logging.disable(logging.CRITICAL)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="outputs")
found = pipeline().output
print(found)
as_before = found == "('--epochs=3.0', ['3.0', 2.0], {'wide': 'false'})"
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
