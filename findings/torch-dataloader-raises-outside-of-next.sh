#!/usr/bin/env bash
# torch's DataLoader: a worker process that is killed raises in whatever the main thread does, not in next().
#
# Expected: when the kernel ends a worker (memory is short), the RuntimeError comes from next(iterator), where a training
#   loop catches it, starts a new loader and goes on at the batch that is due.
# Happens: a handler of SIGCHLD raises it between any two instructions of the main thread: in the backward pass, in the
#   writing of a checkpoint, in an except or finally block of other code. The handler stays in place after the loader is
#   gone. With the handler that was there before put back, the same death does come from next().
# Hurts: who recovers from lost workers around next(): the run still dies, or ends half-way in a step that must be whole.
# Fails if the behaviour changes. Needs python3 with venv and a package index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 numpy==2.4.6
cat > "$work/check.py" <<'PY'
import os
import signal
import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset


class Slow(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, number):
        time.sleep(0.2)
        return number


BEFORE = signal.getsignal(signal.SIGCHLD)


def where(own_handler: bool) -> str:
    batches = iter(DataLoader(Slow(), batch_size=None, num_workers=1, prefetch_factor=1))
    if own_handler:
        signal.signal(signal.SIGCHLD, BEFORE)
    next(batches)
    os.kill(batches._workers[0].pid, signal.SIGKILL)
    try:
        deadline = time.monotonic() + 10  # stands for a step of training, or for a checkpoint being written
        while time.monotonic() < deadline and not (own_handler and not batches._workers[0].is_alive()):
            time.sleep(0.05)
    except RuntimeError as error:
        return f"in unrelated code: {str(error).splitlines()[0]}"
    try:
        for _ in range(5):
            next(batches)
    except RuntimeError as error:
        return f"in next(): {str(error).splitlines()[0]}"
    return "nowhere"


print("torch", torch.__version__)
results = [where(False), where(True)]
print("with torch's handler:", results[0])
print("with the former handler:", results[1])
sys.exit(not (results[0].startswith("in unrelated code") and results[1].startswith("in next()")))
PY
"$work/venv/bin/python" "$work/check.py" || { echo "the behaviour has changed" >&2; exit 1; }
