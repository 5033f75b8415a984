#!/usr/bin/env bash
# The optimizer of the Kubeflow SDK 0.5.0 gives a trial's function every searched value as text.
#
# Expected: Search.choice([1, 3]) gives 1 or 3, and Search.choice([True, False]) gives True or False, to the same function that
#   CustomTrainer calls with real numbers.
# Happens: the call is written as train(**{'epochs': '3', 'augment': 'False'}). epochs * 2 is "33" without an error, and
#   "False" is true, so that both arms of a boolean search are the same run. Search.uniform gives texts, too. The constants
#   beside them in func_args keep their types.
# Hurts: searches over switches (augment, nesterov, freeze): the two choices differ by noise alone, and nothing says so.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kubeflow==0.5.0
cat > "$work/check.py" <<'PY'
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version

from kubeflow.optimizer import Search, TrainJobTemplate
from kubeflow.optimizer.backends.kubernetes.backend import KubernetesBackend
from kubeflow.trainer import CustomTrainer
from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend as TrainerBackend
from kubeflow.trainer.constants.constants import EXEC_FUNC_SCRIPT
from kubeflow.trainer.types import types

print("kubeflow", version("kubeflow"))


def train(epochs, augment, workers):
    print(f"epochs * 2 is {epochs * 2!r}, augment is {bool(augment)}, workers * 2 is {workers * 2!r}")


class Backend(KubernetesBackend):
    """A backend that keeps the Experiment instead of sending it."""

    def __init__(self):
        self.namespace, self.custom_api, self.trainer_backend = "default", self, object.__new__(TrainerBackend)

    def create_namespaced_custom_object(self, *arguments):
        self.made = arguments[-1]


trainer = types.RuntimeTrainer(trainer_type=types.TrainerType.CUSTOM_TRAINER, framework="torch", image="none")
trainer.set_command(("bash", "-c", EXEC_FUNC_SCRIPT.replace("__ENTRYPOINT__", "python")))
runtime = types.Runtime(name="torch", kind=list(types.RuntimeKind)[0], trainer=trainer)
template = TrainJobTemplate(trainer=CustomTrainer(func=train, func_args={"workers": 3}), runtime=runtime)
backend = Backend()
backend.optimize(template, search_space={"epochs": Search.choice([1, 3]), "augment": Search.choice([True, False])})
script = backend.made["spec"]["trialTemplate"]["trialSpec"]["spec"]["trainer"]["command"][-1]
for name, value in (("epochs", "3"), ("augment", "False")):  # as Katib's controller does with a proposal
    script = script.replace(f"${{trialParameters.{name}}}", value)
environment = {**os.environ, "PATH": os.path.dirname(sys.executable) + ":" + os.environ["PATH"]}
with tempfile.TemporaryDirectory() as folder:
    said = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True).stdout
print("epochs 3 and augment False:", said.strip())
if said.strip() != "epochs * 2 is '33', augment is True, workers * 2 is 6":
    sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
