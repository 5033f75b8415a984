#!/usr/bin/env bash
# The optimizer of the Kubeflow SDK 0.5.0 takes several objectives, each with a direction, and keeps the first direction alone.
#
# Expected: [Objective("accuracy", MAXIMIZE), Objective("size", MINIMIZE)] is searched so, or refused.
# Happens: the Experiment maximizes accuracy and lists "size" as an additional metric, which Katib only records. Read back from
#   the cluster, both objectives are to be maximized.
# Hurts: who asks for a small and accurate model gets the most accurate one, and a plot of the front drawn by the directions
#   that get_job returns shows the largest models as the best.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kubeflow==0.5.0
cat > "$work/check.py" <<'PY'
import sys
from importlib.metadata import version

from kubeflow.optimizer import Objective, Search, TrainJobTemplate
from kubeflow.optimizer.backends.kubernetes.backend import KubernetesBackend
from kubeflow.optimizer.backends.kubernetes.utils import get_objectives_from_katib_spec
from kubeflow.optimizer.types.optimization_types import Direction
from kubeflow.trainer import CustomTrainer
from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend as TrainerBackend
from kubeflow.trainer.constants.constants import EXEC_FUNC_SCRIPT
from kubeflow.trainer.types import types
from kubeflow_katib_api.models import V1beta1ObjectiveSpec

print("kubeflow", version("kubeflow"))


class Backend(KubernetesBackend):
    """A backend that keeps the Experiment instead of sending it."""

    def __init__(self):
        self.namespace, self.custom_api, self.trainer_backend = "default", self, object.__new__(TrainerBackend)

    def create_namespaced_custom_object(self, *arguments):
        self.made = arguments[-1]


def train(lr):
    print("accuracy=1")


trainer = types.RuntimeTrainer(trainer_type=types.TrainerType.CUSTOM_TRAINER, framework="torch", image="none")
trainer.set_command(("bash", "-c", EXEC_FUNC_SCRIPT))
runtime = types.Runtime(name="torch", kind=list(types.RuntimeKind)[0], trainer=trainer)
asked, backend = [Objective("accuracy", Direction.MAXIMIZE), Objective("size", Direction.MINIMIZE)], Backend()
template = TrainJobTemplate(trainer=CustomTrainer(func=train), runtime=runtime)
backend.optimize(template, search_space={"lr": Search.uniform(0.1, 1)}, objectives=asked)
sent = backend.made["spec"]["objective"]
back = get_objectives_from_katib_spec(V1beta1ObjectiveSpec.from_dict(sent))
print("asked:", [(each.metric, each.direction.value) for each in asked])
print("sent:", sent)
print("read back:", [(each.metric, each.direction.value) for each in back])
if [each.direction for each in back] != [Direction.MAXIMIZE] * 2 or "minimize" in str(sent):
    sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
