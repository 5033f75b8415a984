#!/usr/bin/env bash
# NNCF cannot prune or compress a model whose outermost module is nn.Sequential; the same layers inside of another module work.
#
# Expected: nn.Sequential is an nn.Module, and nncf.prune, compress_weights and quantize take "a model".
# Happens: NNCF adds a child that holds its hooks. A Sequential calls its children in turn, so that the next forward, NNCF's own,
#   raises NotImplementedError: Module [HookStorage] is missing the required "forward" function.
# Hurts: small networks, and whoever cuts a network into parts or makes one by nn.Sequential(backbone, head): the error names
#   neither the model nor the way out, which is to put it into a module of one's own.
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

nncf.set_log_level(50)
print("nncf", nncf.__version__, "torch", torch.__version__)
images = torch.ones(2, 8)
local = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL
calls = {
    "prune": lambda model: nncf.prune(model, mode=local, ratio=0.5, examples_inputs=images),
    "compress_weights": lambda model: nncf.compress_weights(model, dataset=nncf.Dataset([images])),
}


def layers():
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()


class Inside(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = layers()

    def forward(self, x):
        return self.layers(x)


found = {}
for name, call in calls.items():
    for make in (layers, Inside):
        try:
            call(make().eval())
            found[name, make.__name__] = "works"
        except NotImplementedError as error:
            found[name, make.__name__] = str(error)
for case, answer in found.items():
    print(*case, "-", answer)
same = all(
    answer == "works" if make == "Inside" else "HookStorage" in answer for (_, make), answer in found.items()
)
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
