"""A tiny data set that a network can learn, for tests of training."""

import torch
from kondense.data.dataset import Dataset, Split


def toy_dataset(*, train: int = 192, size: int = 16, classes: int = 3, seed: int = 0) -> Dataset:
    """Return images whose class is the brightest of ``classes`` vertical stripes, with noise."""
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> Split:
        labels = torch.randint(0, classes, (count,), generator=generator)
        images = torch.randint(0, 120, (count, 1, size, size), generator=generator, dtype=torch.uint8)
        stripe = size // classes
        for index, label in enumerate(labels.tolist()):
            images[index, :, :, label * stripe : (label + 1) * stripe] += 90
        return Split(images, labels)

    return Dataset(
        name="toy",
        classes=tuple(f"stripe {index}" for index in range(classes)),
        mean=(0.35,),
        std=(0.17,),
        seed=seed,
        source="made by the test",
        train=split(train),
        validation=split(60),
        test=split(60),
    )
