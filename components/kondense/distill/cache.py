"""A cache of the teachers' outputs for every training image.

Small caches are in memory, large ones in a memory-mapped temporary file that is deleted with the process.

Shapes: N images of the training split, B images in a batch.
"""

import math
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from kondense.data.at_once import at_once
from kondense.data.dataset import Dataset
from kondense.distill.teachers import Teachers
from kondense.errors import InputError

MEMORY_BYTES = 512 * 2**20  # larger caches are files


def fill(
    teachers: Teachers, dataset: Dataset, device: torch.device, *, memory_bytes: int = MEMORY_BYTES
) -> list[Tensor]:
    """Return the teachers' outputs for the training split, [N, ...] each, float32 on the CPU.

    Args:
        teachers: the teachers.
        dataset: its training split gives the images.
        device: computes the outputs.
        memory_bytes: the largest cache in memory; larger ones are files.

    Raises:
        InputError: the temporary directory has too little space for the file.
    """
    images_u8 = dataset.train.images
    cached: list[Tensor] = []
    size = at_once(dataset.shape)
    for number, part_u8 in enumerate(images_u8.split(size)):
        start = number * size
        outputs = teachers.outputs(dataset.normalise(part_u8.to(device)))
        if not cached:
            cached = _allocate([(len(images_u8), *output.shape[1:]) for output in outputs], memory_bytes)
        for target, output in zip(cached, outputs, strict=True):
            target[start : start + size] = output.float().cpu()
    return cached


def _allocate(shapes: list[tuple[int, ...]], memory_bytes: int) -> list[Tensor]:
    needed = sum(4 * math.prod(shape) for shape in shapes)
    if needed <= memory_bytes:
        return [torch.empty(shape) for shape in shapes]
    directory = Path(tempfile.gettempdir())
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise InputError(
            f"cache_teacher needs {needed / 2**20:.0f} MiB in {directory}, but {free / 2**20:.0f} MiB are free;"
            " turn it off, or set TMPDIR to a larger directory."
        )
    return [_mapped(shape, directory) for shape in shapes]


def _mapped(shape: tuple[int, ...], directory: Path) -> Tensor:
    # The mapping outlives the file's name, so no file remains however the process ends.
    with tempfile.NamedTemporaryFile(prefix="kondense-teacher-", dir=directory) as file:
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.float32).view(shape)
