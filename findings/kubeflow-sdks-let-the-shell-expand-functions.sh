#!/usr/bin/env bash
# A function given to KatibClient.tune or to the Kubeflow SDK's CustomTrainer passes through a shell that expands it.
#
# Expected: the container runs the function as it is written.
# Happens: its source stands in a here document without quotes (<< EOM). The shell replaces $HOME and $1, takes `lr` in a
#   docstring for a command, and makes one backslash of two: "a\\n" ends in a line feed, r"\$" loses its backslash. It runs in
#   the notebook and does something else on the cluster. kubeflow-katib 0.19.0 and kubeflow 0.5.0 alike.
# Hurts: functions with regular expressions, LaTeX labels, shell commands, prices, Markdown in docstrings: another text, an empty
#   one, or "command not found" in the log of a trial that succeeds.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kubeflow-katib==0.19.0 kubeflow==0.5.0
cat > "$work/check.py" <<'PY'
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version

from kubeflow.katib.utils.utils import get_exec_script_from_objective
from kubeflow.trainer.backends.kubernetes.utils import get_command_using_train_func
from kubeflow.trainer.constants.constants import EXEC_FUNC_SCRIPT
from kubeflow.trainer.types import types

print(*(f"{name} {version(name)}" for name in ("kubeflow-katib", "kubeflow")))


def objective(parameters=None):
    """Train with `no-such-command` as the schedule."""
    print("in $WHERE, a tab is \\t")


trainer = types.RuntimeTrainer(trainer_type=types.TrainerType.CUSTOM_TRAINER, framework="torch", image="none")
trainer.set_command(("bash", "-c", EXEC_FUNC_SCRIPT.replace("__ENTRYPOINT__", "python")))
runtime = types.Runtime(name="torch", kind=list(types.RuntimeKind)[0], trainer=trainer)
scripts = {
    "here": None,
    "kubeflow-katib": get_exec_script_from_objective(objective, "python -u", {}),
    "kubeflow": get_command_using_train_func(runtime, objective, None, [], None)[-1],
}
environment = {**os.environ, "WHERE": "Paris", "PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"]}
found = {}
for name, script in scripts.items():
    if script is None:
        found[name] = "in $WHERE, a tab is \\t"
        objective()
        continue
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    found[name] = done.stdout.rstrip("\n")
    print(f"{name}: {found[name]!r}, exit {done.returncode}, stderr: {done.stderr.strip()!r}")
    if found[name] != "in Paris, a tab is \t" or "no-such-command: command not found" not in done.stderr:
        sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
