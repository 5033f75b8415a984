"""Check a ``torch.export`` program in a fresh process.

Run as a program, this module reads normalised images and writes the logits of the program:
``python -m kondense.evaluate.program PROGRAM IMAGES LOGITS``, the latter two in the safetensors format.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kondense.artifacts.model import Model
from kondense.artifacts.tensors import read_tensors, write_tensors
from kondense.data.dataset import Dataset
from kondense.export.torch_program import export_program
from kondense.files import ArtifactError
from kondense.scratch import scratch_directory

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 64
TIMEOUT_S = 300


def checked_program(model: Model, dataset: Dataset) -> tuple[bytes | None, dict[str, Any]]:
    """Return the program of ``model``, None unless it is lossless, and its description for evaluation.json.

    Raises:
        ArtifactError: the network cannot be captured, or the program fails in a fresh process.
    """
    content = export_program(model, dataset)
    images_NCHW = dataset.normalise(dataset.test.images[:IMAGES])
    with torch.inference_mode():
        expected_NK = model.module(images_NCHW)
    logits_NK = run_in_fresh_process(content, images_NCHW)
    lossless = torch.equal(logits_NK, expected_NK)
    difference = float((logits_NK - expected_NK).abs().max())
    described = {"bytes": len(content), "lossless": lossless, "largest_difference": difference}
    return (content if lossless else None), described


def run_in_fresh_process(program: bytes, images_NCHW: Tensor) -> Tensor:
    """Return the logits [N, K] of ``program`` in a fresh process with the same number of threads."""
    with scratch_directory("program") as scratch:
        (scratch / "program.pt2").write_bytes(program)
        write_tensors(scratch / "images", {"images": images_NCHW.contiguous()})
        files = [str(scratch / name) for name in ("program.pt2", "images", "logits")]
        search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        threads = str(torch.get_num_threads())
        done = subprocess.run(
            [sys.executable, "-P", "-m", "kondense.evaluate.program", *files],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": threads},
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [""]
            raise ArtifactError(f"the torch.export program failed in a fresh process: {lines[-1]}")
        return read_tensors(scratch / "logits")["logits"]


def main(program: str, images: str, logits: str) -> None:
    """Load the program, run it on the images, write the logits."""
    module = torch.export.load(program).module()
    with torch.inference_mode():
        logits_NK = module(read_tensors(Path(images))["images"])
    write_tensors(Path(logits), {"logits": logits_NK.contiguous()})


if __name__ == "__main__":
    main(*sys.argv[1:])
