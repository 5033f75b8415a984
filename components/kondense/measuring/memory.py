"""The memory that onnxruntime needs to load and run a model, measured in a separate process without torch.

Run as a program, this module prints one number: ``python -m kondense.measuring.memory MODEL.onnx BATCH``.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from kondense.measuring.latency import open_session, takes_pixels
from kondense.scratch import scratch_directory
from kondense.usage import resident_peak_bytes

ROOT = Path(__file__).resolve().parents[2]
RUNS = 2  # the second takes the memory that the first one planned; later ones take no more
LEAST_S, PATIENCE = 120.0, 30  # time limit: seconds, and times what the runs are known to take


def peak_memory_bytes(onnx: bytes, *, batch: int = 64, run_s: float = 0.0) -> int:
    """Return the growth of the peak resident memory of a new process that loads and runs a model.

    Args:
        onnx: the model.
        batch: images per batch; it runs RUNS times.
        run_s: seconds that a run takes, if known; the time limit grows with it.

    Raises:
        ChildProcessError: the process failed or took too long; the text has the last line of its output.
    """
    timeout_s = LEAST_S + PATIENCE * RUNS * run_s
    with scratch_directory("memory") as directory:
        path = directory / "model.onnx"
        path.write_bytes(onnx)
        search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-P", "-m", "kondense.measuring.memory", str(path), str(batch)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                env={**os.environ, "PYTHONPATH": search},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ChildProcessError(f"measuring peak memory must end within {timeout_s:.0f} s, but did not.") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [""]
        raise ChildProcessError(f"measuring peak memory failed with exit code {done.returncode}: {lines[-1]}")
    return int(done.stdout)


def main(path: str, batch: str) -> None:
    """Print the growth of this process, in bytes, while it loads the model and runs it."""
    before = resident_peak_bytes()
    session = open_session(Path(path).read_bytes())
    model_input = session.get_inputs()[0]
    kind = np.uint8 if takes_pixels(session) else np.float32
    images_NCHW = np.zeros((int(batch), *model_input.shape[1:]), kind)
    for _ in range(RUNS):
        session.run(None, {model_input.name: images_NCHW})
    print(resident_peak_bytes() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
