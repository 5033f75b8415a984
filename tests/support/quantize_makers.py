"""Make small datasets and models for the tests of quantization, export and evaluation."""

import torch
from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset, Split
from kondense.networks.build import NetworkSpec, build
from kondense.quantize.config import QuantizeConfig
from kondense.quantize.context import Context
from kondense.training.losses import cross_entropy
from kondense.training.session import Session
from torch import nn


def make_split(count: int, *, seed: int, size: int = 28, channels: int = 1) -> Split:
    """Return images of 10 classes: noise over a bright square whose place tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    images = torch.randint(0, 90, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    step = (size - 8) // 4
    for index, label in enumerate(labels.tolist()):
        top, left = step * (label // 4), step * (label % 4)
        images[index, :, top : top + 8, left : left + 8] += 120
    return Split(images, labels)


def make_dataset(*, size: int = 28, channels: int = 1, test: int = 300) -> Dataset:
    """Return 400 training, 100 validation and ``test`` test images of 10 classes."""
    train = make_split(400, seed=0, size=size, channels=channels)
    scaled = train.images.double() / 255
    return Dataset(
        name="squares",
        classes=tuple(f"class {index}" for index in range(10)),
        mean=tuple(scaled.mean((0, 2, 3)).tolist()),
        std=tuple(scaled.std((0, 2, 3)).tolist()),
        seed=0,
        source="made by a test",
        train=train,
        validation=make_split(100, seed=1, size=size, channels=channels),
        test=make_split(test, seed=2, size=size, channels=channels),
    )


def make_model(name: str, dataset: Dataset, *, steps: int = 30, width: float = 1.0) -> Model:
    """Return a network trained for a few steps, enough for activations and norms of real shape."""
    channels, size, _ = dataset.shape
    arguments = {"classes": 10, "channels": channels, "image_size": size}
    if width != 1.0:
        arguments["width"] = width
    spec = NetworkSpec(name, arguments)
    module = build(spec).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    images_NCHW = dataset.normalise(dataset.train.images)
    for step in range(steps):
        part = slice(50 * (step % 8), 50 * (step % 8) + 50)
        loss = nn.functional.cross_entropy(module(images_NCHW[part]), dataset.train.labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Model(module.eval(), spec)


def make_context(config: QuantizeConfig, dataset: Dataset, teacher: Model | None = None) -> Context:
    """Return the context of a quantization method that trains on labels only."""
    return Context(config, Session(dataset, config, cross_entropy(0.0)), teacher)
