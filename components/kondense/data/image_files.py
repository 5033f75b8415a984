"""Picture files as the images of a data set: decoded when they are taken, and all unreadable ones are named at once.

Shapes: N images, C channels, H height, W width, M chosen images, K of them readable.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kondense.data.picture import MAX_PIXELS, Facts, Geometry, PictureError, decode, facts, shown
from kondense.data.pieces import AT_ONCE, Bring, in_parts, present
from kondense.data.workers import delivered, new_batch
from kondense.errors import InputError

PART_BYTES = 2**23  # of decoded images that a process hands over at a time
FEW = 64  # pictures that this process decodes itself
LISTED = 10  # files or sizes that a message names
LARGEST = 2**20  # pixels of pictures whose size nobody asked for: a network of such images takes hours
LONGEST = 300  # characters of one file's line in a message of several


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Images [N, C, H, W] in files, which ``bring`` makes complete; ``geometry`` has a size and channels."""

    paths: Sequence[Path]
    geometry: Geometry
    max_pixels: int = MAX_PIXELS
    bring: Bring = present

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen_M: NDArray[np.int64]) -> NDArray[np.uint8]:
        images, _, problems = self.read(chosen_M)
        if problems:
            raise InputError(in_one_line(problems))
        return images

    def read(self, chosen_M: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
        """Return the readable images [K, C, H, W], which of the chosen they are, and one line for each other."""
        problems: list[str] = []
        readable = [np.zeros(0, np.bool_)]
        images_MCHW = np.empty((len(chosen_M), self.geometry.channels, *self.geometry.size), np.uint8)
        count = 0
        for images, readable_P, lines in self.parts(chosen_M):
            images_MCHW[count : count + len(images)] = images
            count += len(images)
            readable.append(readable_P)
            problems += lines
        return images_MCHW[:count], np.concatenate(readable), problems

    def parts(
        self, chosen_M: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_], Sequence[str]]]:
        """Yield what ``read`` returns, in order and in parts of at most PART_BYTES, decoded by worker processes."""
        size = max(1, min(AT_ONCE, PART_BYTES // self.bytes_per_image()))
        indices = torch.from_numpy(chosen_M).split(size) if len(chosen_M) else ()
        for images, readable, problems in delivered(
            self._decoded, indices, None, image_bytes=self.bytes_per_image(), few=FEW, spare=0
        ):
            yield images.numpy(), readable.numpy(), problems

    def _decoded(self, index_P: Tensor) -> tuple[Tensor, Tensor, list[str]]:
        """Return what ``read`` does for the pictures of one part, decoded in this process."""
        geometry, readable_P, problems = self.geometry, torch.zeros(len(index_P), dtype=torch.bool), []
        images_PCHW = new_batch((len(index_P), geometry.channels, *geometry.size))
        target_PCHW = images_PCHW.numpy()
        count = 0
        for row, path in enumerate(in_parts([self.paths[index] for index in index_P.tolist()], self.bring)):
            try:
                target_PCHW[count] = decode(path, geometry, max_pixels=self.max_pixels)
            except PictureError as error:
                problems.append(str(error))
                continue
            readable_P[row] = True
            count += 1
        return images_PCHW[:count], readable_P, problems

    def bytes_per_image(self) -> int:
        """Return the size of one image in memory."""
        return self.geometry.channels * math.prod(self.geometry.size)


def surveyed(paths: Sequence[Path], geometry: Geometry, max_pixels: int, bring: Bring = present) -> Geometry:
    """Return ``geometry`` with the size and the channels that it leaves to the pictures.

    Unreadable files do not count here: they are named when they are decoded.

    Raises:
        InputError: pictures of several sizes, or very large ones, although no size is asked for, or none that can be
            read.
    """
    if geometry.size and geometry.channels:
        return geometry
    found: dict[Path, Facts] = {}
    problems = []
    for path in in_parts(paths, bring):
        try:
            found[path] = facts(path, max_pixels=max_pixels)
        except PictureError as error:
            problems.append(str(error))
    if not found:
        raise InputError(in_one_line(problems))
    channels = geometry.channels or (1 if all(fact.grey for fact in found.values()) else 3)
    return dataclasses.replace(geometry, size=geometry.size or _common_size(found), channels=channels)


def in_one_line(problems: Sequence[str]) -> str:
    """Return the problems of files as one line that names the first ones and counts all."""
    if len(problems) == 1:
        return problems[0]
    named = "; ".join(problem.removesuffix(".")[-LONGEST:] for problem in problems[:LISTED])
    more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return f"{len(problems)} files cannot be read: {named}{more}."


def _common_size(found: dict[Path, Facts]) -> tuple[int, int]:
    sizes = collections.Counter((fact.height, fact.width) for fact in found.values())
    if len(sizes) == 1:
        height, width = size = next(iter(sizes))
        if height * width > LARGEST:
            raise InputError(
                f"images must have at most {LARGEST:,} pixels, or image_size must be given, but have {height}x{width}:"
                " image_size=224 resizes them."
            )
        return size
    (common, often), *_ = sizes.most_common(1)
    path, fact = next((path, fact) for path, fact in found.items() if (fact.height, fact.width) != common)
    raise InputError(
        f"images must be of one size (height x width), or image_size must be given, but {shown(path)} is"
        f" {fact.height}x{fact.width} and {often} of {len(found)} are {common[0]}x{common[1]} ({len(sizes)} sizes):"
        f" image_size={min(224, *common)} resizes them."
    )
