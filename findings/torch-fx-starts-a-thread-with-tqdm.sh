#!/usr/bin/env bash
# torch.fx: interpreting a graph starts a thread where tqdm is installed, though no progress bar is shown.
#
# Expected: running a graph module's interpreter with its defaults (verbose off) computes and leaves no thread; whether a
#   package for progress bars is installed changes nothing.
# Happens: torch.fx.Interpreter.run wraps its loop in tqdm(disable=True), and tqdm starts its monitor thread for disabled
#   bars too. With tqdm installed (any Hugging Face package brings it) the process has a second thread from then on.
# Hurts: who traces, exports to ONNX (torch.onnx.export interprets graphs) or quantizes before forking workers: a fork
#   server must not fork with threads, Python 3.12 warns of a possible deadlock, and it depends on an unrelated package.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import threading

import torch

module = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
torch.fx.Interpreter(module).run(torch.ones(1, 2))
print(torch.__version__, "threads of Python:", threading.active_count())
PY
"$work/venv/bin/python" "$work/check.py" | tee "$work/without"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tqdm==4.67.1
"$work/venv/bin/python" "$work/check.py" | tee "$work/with"
grep -q ': 1$' "$work/without" && grep -q ': 2$' "$work/with" || { echo "the behaviour has changed" >&2; exit 1; }
