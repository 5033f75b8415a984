"""The batches of an epoch, augmented: from images in memory, or from shards by worker processes.

Both give the same images and leave the global generator in the same state, so the same weights come out.

Shapes: N images, B of a batch, C channels, H height, W width.
"""

import dataclasses
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from kondense.data.dataset_files import Split
from kondense.data.shards import ShardError
from kondense.data.streamed import ShardedImages
from kondense.errors import InputError
from kondense.processes import PeerError, current
from kondense.store.store import StoreError
from kondense.training.augment import Rows, augment
from kondense.training.device import place
from kondense.training.settings import BATCH_AUGMENTATIONS, TrainingConfig

Batch = tuple[Tensor, Tensor, Tensor]  # index [B], images uint8 [B, C, H, W], labels [B]


class Feed:
    """The training images of a run.

    Attributes:
        batch_size: images per step, in all processes together.
        steps: per epoch.
        rows: the images of each batch that this process trains on, one of several; None: all.
        lead: how many of them come before its own, which are mixed with those before them.
    """

    def __init__(self, split: Split, config: TrainingConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.batch_size = min(config.batch_size, len(split))
        self.steps = len(split) // self.batch_size
        processes = current()
        if self.batch_size < processes.count:
            raise InputError(
                f"batch_size must be at least the {processes.count} devices, but got {self.batch_size}"
                f"{' training images' * (self.batch_size < config.batch_size)}."
            )
        mixed = not set(BATCH_AUGMENTATIONS).isdisjoint(config.augmentations)
        self.lead = int(mixed and processes.several)
        own = processes.part(self.batch_size)
        index = tuple(row % self.batch_size for row in range(own.start - self.lead, own.stop))
        self.rows = Rows(index, self.batch_size) if processes.several else None
        self.shards = split.images if isinstance(split.images, ShardedImages) else None
        if isinstance(split.images, ShardedImages):
            self.images, self.labels = torch.empty(0), split.labels.to(device)
        else:
            self.images, self.labels = place(split.images, split.labels, device)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield index [B], on the CPU, augmented images uint8 [B, C, H, W] and labels [B] from step ``first`` on.

        The global generator is seeded for the step when its batch is yielded. Of several processes each gets its rows
        of the batch, and the same state of the generator.

        Raises:
            ShardError: a shard is missing, damaged or of another version; none of its images is yielded.
            StoreError: the shards' store is gone for good.
            PeerError: another process could not read its images.
        """
        generator = step_generator(self.config.seed, epoch)
        if self.shards:
            order_N = self.shards.shuffled(generator)
        else:
            order_N = torch.randperm(len(self.labels), generator=generator)
        steps = range(first, self.steps)
        index_SB = [order_N[step * self.batch_size : (step + 1) * self.batch_size] for step in steps]
        if self.rows is not None:
            rows = torch.tensor(self.rows.index)
            index_SB = [index_B[rows] for index_B in index_SB]
        if self.shards:
            streamed = self._streamed(self.shards, epoch, first, index_SB)
            yield from streamed if self.rows is None else _agreed(streamed, len(index_SB))
            return
        for step, index_B in zip(steps, index_SB, strict=True):
            generator = step_generator(self.config.seed, epoch, step, globally=True)
            index = index_B.to(self.images.device)
            images_u8 = augment(self.images[index], self.config.augmentations, generator, self.rows)
            yield index_B, images_u8.to(self.device, non_blocking=True), self._labels(index)

    def _streamed(self, shards: ShardedImages, epoch: int, first: int, index_SB: list[Tensor]) -> Iterator[Batch]:
        augmented = Augmented(self.config.seed, epoch, first, tuple(self.config.augmentations), self.rows)
        for number, (images_u8, random) in enumerate(shards.batches(index_SB, augmented)):
            step_generator(self.config.seed, epoch, first + number, globally=True)  # the GPU's, too
            torch.set_rng_state(random)
            yield index_SB[number], images_u8.to(self.device, non_blocking=True), self._labels(index_SB[number])

    def _labels(self, index: Tensor) -> Tensor:
        return self.labels[index.to(self.labels.device)].to(self.device, non_blocking=True)


def _agreed(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """Yield ``count`` batches; if one process has none, none goes on."""
    for _ in range(count):
        batch, failure = None, None
        try:
            batch = next(batches)
        except (ShardError, StoreError) as error:
            failure = error
        if any(current().any(failure is not None)):
            raise failure or PeerError("another process could not read its images")
        assert batch
        yield batch


@dataclasses.dataclass(frozen=True)
class Augmented:
    """Augments a batch in a worker process; returns the state of the generator after it, too."""

    seed: int
    epoch: int
    first: int
    names: tuple[str, ...]
    rows: Rows | None = None

    def __call__(self, number: int, images_u8: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images of batch ``number`` augmented, and the state of the global generator."""
        generator = step_generator(self.seed, self.epoch, self.first + number, globally=True)
        return augment(images_u8, self.names, generator, self.rows), torch.get_rng_state()


def step_generator(seed: int, *position: int, globally: bool = False) -> torch.Generator:
    """Return a generator for one position of the run; ``globally`` also seeds the global one, which dropout uses."""
    text = ",".join(map(str, (seed, *position)))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")
    if globally:
        # As torch.manual_seed, which also takes a stack trace for each device that is there but not in use.
        torch.default_generator.manual_seed(number)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(number)
    return torch.Generator().manual_seed(number)
