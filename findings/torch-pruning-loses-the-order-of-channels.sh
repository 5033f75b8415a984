#!/usr/bin/env bash
# torch-pruning removes the wrong inputs of a layer behind a reordering of the channels: removing filters that are all
# zero changes the outputs.
#
# Expected: a filter whose weights and bias are zero adds nothing, so without it the network computes the same; where
#   the order of channels cannot be followed, a refusal.
# Happens: behind flip and roll the inputs at the old places are removed; channels-last flattening (permute(0, 2, 3,
#   1).flatten(1), usual in networks from TensorFlow) takes runs of neighbours instead of every n-th.
#   check_pruning_group() says True, shapes fit, outputs move.
# Hurts: ported networks and channel shuffles by hand: the accuracy after pruning is that of another network;
#   fine-tuning hides it.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1 numpy==2.4.6 torch-pruning==1.6.1
cat > "$work/check.py" <<'PY'
import sys

import torch
import torch_pruning
from torch import nn

print("torch", torch.__version__, "torch-pruning", torch_pruning.__version__)
ORDERS = {
    "as they are": lambda y: y.flatten(1),
    "flip": lambda y: y.flip(1).flatten(1),
    "roll": lambda y: y.roll(1, 1).flatten(1),
    "channels last": lambda y: y.permute(0, 2, 3, 1).flatten(1),
}


class Network(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.order, self.first, self.second = order, nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 16, 5)

    def forward(self, x):
        return self.second(self.order(self.first(x)))


found = {}
for name, order in ORDERS.items():
    torch.manual_seed(0)
    network, x, dead = Network(order).eval(), torch.randn(2, 3, 4, 4), [1, 2]
    with torch.no_grad():
        network.first.weight[dead], network.first.bias[dead] = 0.0, 0.0
    before = network(x)
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=x)
    group = graph.get_pruning_group(network.first, torch_pruning.prune_conv_out_channels, idxs=dead)
    agreed = graph.check_pruning_group(group)
    group.prune()
    found[name] = agreed, float((network(x) - before).abs().max())
    print(f"{name}: check_pruning_group {agreed}, two zero filters removed, outputs move by {found[name][1]:.4f}")
as_before = found.pop("as they are")[1] < 1e-5 and all(agreed and moved > 0.01 for agreed, moved in found.values())
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
