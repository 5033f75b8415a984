#!/usr/bin/env bash
# nn.utils.remove_spectral_norm: the layer can no longer load a state dict, its own included.
#
# Expected: the layer is an ordinary one afterwards; load_state_dict(state_dict()) works.
# Happens: the hook that reads weight_orig and weight_u while loading stays, because torch looks for it without the wrapper
#   that it puts around every such hook: "Missing key(s) in state_dict: conv.weight_orig, conv.weight_u".
# Hurts: who bakes spectral norms in before saving a network and loads the file into a network without them.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir torch==2.14.1
cat > "$work/check.py" <<'PY'
import sys

import torch
from torch import nn

layer = nn.utils.remove_spectral_norm(nn.utils.spectral_norm(nn.Linear(2, 2)))
print("torch", torch.__version__, list(layer.state_dict()))
try:
    layer.load_state_dict(layer.state_dict())
except RuntimeError as error:
    print(error)
    sys.exit(0 if "weight_orig" in str(error) else "the behaviour has changed")
sys.exit("the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
