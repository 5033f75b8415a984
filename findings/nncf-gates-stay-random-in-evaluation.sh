#!/usr/bin/env bash
# nncf.prune by regularization gives a model in evaluation mode gates that draw at random, so that each call gives another output.
#
# Expected: a model that was in evaluation mode stays deterministic, as with the magnitude modes.
# Happens: model.training is False, but the gates that NNCF adds are in training mode and drop weights at random in every forward. Only
#   another call of model.eval() makes the output that of the network, which nothing is pruned from yet.
# Hurts: who measures accuracy before training begins, compares outputs, or exports: the numbers change from call to call, and
#   a check of model.training shows nothing.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir nncf==3.4.0 torch==2.14.1 torchao==0.18.0
cat > "$work/check.py" <<'PY'
import sys
import warnings

warnings.filterwarnings("ignore")
import nncf
import torch

torch.manual_seed(0)
nncf.set_log_level(50)
print("nncf", nncf.__version__, "torch", torch.__version__)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 64)

    def forward(self, x):
        return self.layer(x)


images = torch.randn(2, 64)
model = Network().eval()
with torch.no_grad():
    before = model(images).clone()
    mode = nncf.PruneMode.UNSTRUCTURED_REGULARIZATION_BASED
    pruned = nncf.prune(model, mode=mode, examples_inputs=images)
    training = pruned.training
    apart = float((pruned(images) - pruned(images)).abs().max())
    pruned.eval()
    later = float((pruned(images) - pruned(images)).abs().max())
    off = float((pruned(images) - before).abs().max())
print(f"training: {training}; two calls differ by {apart:.3f}, after eval() by {later:.3f}, and from the network by {off:.3f}")
same = not training and apart > 0.001 and later == 0 and off < 1e-6
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
