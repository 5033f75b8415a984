"""Images in shards, used as a uint8 tensor [N, C, H, W] is: by index, in parts, and in batches of worker processes.

Shapes: N images, B of a batch, C channels, H height, W width, S shards.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kondense.data.picture import DAMAGED, one_line
from kondense.data.shard_images import decoded
from kondense.data.shards import ShardError, Shards
from kondense.data.workers import Change, delivered, new_batch

DIGEST = 16  # bytes of an image's digest
AT_ONCE = 256  # images decoded in this process; of more, worker processes decode


class ShardedImages:
    """N images in shards.

    Attributes:
        shards: the files.
        shape: [N, C, H, W].
        place_N3: of each image: number of its shard, offset and length of its file there, int64 [N, 3].
        digests: of the images' pixels, uint8 [N, 16].
        window_bytes: bytes of shards within which images are shuffled.
    """

    dtype, ndim = torch.uint8, 4

    def __init__(
        self, shards: Shards, image_shape: Sequence[int], place_N3: Tensor, digests: Tensor, *, window_bytes: int
    ) -> None:
        self.shards, self.place_N3, self.digests, self.window_bytes = shards, place_N3, digests, window_bytes
        self.shape = torch.Size((len(place_N3), *image_shape))

    def __len__(self) -> int:
        return len(self.place_N3)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return the images at ``index``, uint8 [B, C, H, W].

        Raises:
            ShardError: a shard of theirs is missing or differs from the index.
        """
        index_B = torch.arange(len(self))[index]
        images_BCHW = torch.empty((len(index_B), *self.shape[1:]), dtype=torch.uint8)
        done = 0
        for part in self.batches(index_B.split(AT_ONCE)) if len(index_B) > AT_ONCE else [self.read(index_B)]:
            images_BCHW[done : done + len(part)] = part
            done += len(part)
        return images_BCHW

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield all images in order, ``size`` at a time, decoded by worker processes."""
        return self.batches(torch.arange(len(self)).split(size))

    def batches(self, indices: Sequence[Tensor], change: Change | None = None) -> Iterator[Tensor]:
        """Yield the images of each index tensor [B], in order, decoded ahead by worker processes.

        Args:
            indices: of the batches.
            change: called in the worker with the batch's number and images; its result is yielded in their place.

        Raises:
            ShardError: a shard is missing or differs from the index; no image of it is yielded.
        """
        return delivered(self.read, indices, change, image_bytes=self.shape[1:].numel())

    def read(self, index_B: Tensor) -> Tensor:
        """Return the images at ``index_B``, decoded in this process."""
        images_BCHW = new_batch((len(index_B), *self.shape[1:]))
        target_BCHW = images_BCHW.numpy()
        for row, (number, offset, length) in enumerate(self.place_N3[index_B].tolist()):
            target_BCHW[row] = self._decoded(number, offset, length)
        return images_BCHW

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """Return the order of an epoch, [N]: a permutation, of all images or of a window of shards at a time.

        It depends on the index and the generator alone, not on workers, cache or store.
        """
        count = len(self.shards.files)
        window = max(1, self.window_bytes // max(file.size for file in self.shards.files))
        if window >= count:
            return torch.randperm(len(self), generator=generator)  # as of images in memory
        shards_S = torch.randperm(count, generator=generator)
        rank_S = torch.empty(count, dtype=torch.int64)
        rank_S[shards_S] = torch.arange(count) // window
        windows_N = rank_S[self.place_N3[:, 0]]
        order_N = torch.randperm(len(self), generator=generator)
        return order_N[windows_N[order_N].argsort(stable=True)]

    def _decoded(self, number: int, offset: int, length: int) -> NDArray[np.uint8]:
        content = self.shards.read(number, offset, length)
        try:
            return decoded(content, self.shape[1:])
        except DAMAGED as error:
            address = self.shards.place.address(self.shards.files[number])
            channels, height, width = self.shape[1:]
            raise ShardError(
                f"shard {address} must hold an image of {channels}x{height}x{width} at byte {offset}, but:"
                f" {one_line(error)}."
            ) from error


Images = Tensor | ShardedImages
