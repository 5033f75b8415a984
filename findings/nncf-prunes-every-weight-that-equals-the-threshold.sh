#!/usr/bin/env bash
# nncf.prune by magnitude zeroes all weights that equal its threshold: of weights of few sizes, any ratio prunes all of a size.
#
# Expected: ratio 0.1 makes a tenth of the weights zero, whichever of equal ones, and ratio 0 none; or the excess is told.
# Happens: a weight stays only if its magnitude is above the quantile. Of a layer whose weights are all 1 or -1, ratio 0.1 and even
#   0.0 zero every weight; of weights on a grid of 3 bits, ratio 0.1 zeroes a quarter. nncf.pruning_statistic gives the ratio that
#   came about, and nothing is raised. Of weights that all differ, ratio 0 zeroes the smallest.
# Hurts: who prunes a network that is quantized, binarized or clustered already, or whose layer begins as a constant: the layer gives
#   its bias for any input.
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


def zeros(weights, ratio):
    layer = torch.nn.Linear(64, 64, bias=False)
    layer.weight.data = weights.clone()
    images = torch.ones(1, 64)
    mode = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_LOCAL
    pruned = nncf.prune(layer, mode=mode, ratio=ratio, examples_inputs=images)
    stripped = nncf.strip(pruned, do_copy=False, strip_format=nncf.StripFormat.IN_PLACE)
    return float((stripped.weight == 0).float().mean())


normal = torch.randn(64, 64)
grid = torch.tensor([-4.0, -3, -2, -1, 1, 2, 3, 4])[torch.randint(8, (64, 64))]
cases = {"all different": normal, "of 3 bits": grid, "of 1 bit": normal.sign()}
found = {(name, ratio): zeros(weights, ratio) for name, weights in cases.items() for ratio in (0.0, 0.1, 0.5)}
for (name, ratio), share in found.items():
    print(f"weights {name}, ratio {ratio}: {share:.4f} are zero")
same = (
    found["all different", 0.0] == 1 / 4096
    and abs(found["all different", 0.1] - 0.1) < 0.001
    and 0.2 < found["of 3 bits", 0.0] == found["of 3 bits", 0.1] < 0.3
    and all(found["of 1 bit", ratio] == 1 for ratio in (0.0, 0.1, 0.5))
)
sys.exit(0 if same else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work/model.onnx"
