#!/usr/bin/env bash
# torch.nn.utils.prune on one of two layers that share a weight: remove(), which "makes pruning permanent", zeroes the
# other layer's weights too.
#
# Expected: remove() changes how the pruned tensor is stored, not what the network computes.
# Happens: while the mask is there, the output layer uses masked weights and the embedding the whole tensor: half of
#   the one is zero and nothing of the other. remove() writes the masked values into the shared tensor, and the
#   outputs change, by as much as the whole network's pruning did.
# Hurts: language models and autoencoders with tied weights: the accuracy is measured before remove(), the file is
#   written after it.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import sys

import torch
from torch import nn
from torch.nn.utils import prune

print("torch", torch.__version__)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(self.embedding(tokens))


def zeros(network):
    return [float((weight == 0).float().mean()) for weight in (network.embedding.weight, network.output.weight)]


torch.manual_seed(0)
network, tokens = Tied(), torch.arange(10)
prune.l1_unstructured(network.output, "weight", 0.5)
masked, shares = network(tokens), zeros(network)
prune.remove(network.output, "weight")
moved = float((network(tokens) - masked).abs().max())
print("share of zeros in embedding and output: with the mask", shares, "after remove()", zeros(network))
print(f"outputs move by {moved:.3f} in remove()")
as_before = shares == [0.0, 0.5] and zeros(network) == [0.5, 0.5] and moved > 0.1
sys.exit(0 if as_before else "the behaviour has changed")
PY
"$work/venv/bin/python" -W ignore "$work/check.py"
