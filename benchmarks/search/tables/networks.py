"""Learning curves of small networks, many of one batch size and optimizer trained at once.

Legend: C configurations, E examples, B examples of a batch, F inputs, H hidden units, K classes.

A network has one hidden layer. Narrow ones are trained as wide ones whose other units are multiplied by zero. All see
the batches in the same order; the initial weights differ.
"""

from dataclasses import dataclass

import numpy as np
import torch
from kondense.data import fashion_mnist
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

from benchmarks.search.tables.grids import MAX_RESOURCE, Grid

SEED = 0


@dataclass(frozen=True)
class Examples:
    """Inputs [E, F], centred and about unit variance, and labels [E], for training and for the loss."""

    inputs: Tensor
    labels: Tensor
    other_inputs: Tensor
    other_labels: Tensor


def digits() -> Examples:
    inputs, labels = load_digits(return_X_y=True)
    return _split(inputs / 4 - 1.2, labels, 600)


def fashion() -> Examples:
    train = fashion_mnist.collect(None).train
    images = torch.as_tensor(train.images[:3_000]).float() / 255
    small = functional.avg_pool2d(images, 4).flatten(1).numpy()
    return _split((small - small.mean()) / small.std(), train.labels[:3_000], 1_000)


def _split(inputs: np.ndarray, labels: np.ndarray, count: int) -> Examples:
    order = np.random.default_rng(SEED).permutation(len(labels))
    first, rest = order[:count], order[count:]
    x, y = torch.as_tensor(inputs, dtype=torch.float32), torch.as_tensor(labels)
    return Examples(x[first], y[first], x[rest], y[rest])


def curves(grid: Grid, numbers: np.ndarray, examples: Examples) -> np.ndarray:
    """Return the losses of configurations `numbers` after each epoch, [C, R]."""
    values = grid.columns(numbers)
    values = {
        "momentum": np.full(len(numbers), 0.9), "weight_decay": np.zeros(len(numbers)),
        "dropout": np.zeros(len(numbers)), "schedule": np.full(len(numbers), "constant"),
        "activation": np.full(len(numbers), "relu"), "optimizer": np.full(len(numbers), "sgd"), **values,
    }  # fmt: skip
    losses = np.empty((len(numbers), MAX_RESOURCE))
    groups = list(zip(values["batch_size"].tolist(), values["optimizer"].tolist(), strict=True))
    for batch_size, optimizer in sorted(set(groups)):
        index = np.array([i for i, group in enumerate(groups) if group == (batch_size, optimizer)])
        chosen = {name: column[index] for name, column in values.items()}
        losses[index] = _train(chosen, numbers[index], int(batch_size), optimizer == "adam", examples)
    return losses


def _train(
    values: dict[str, np.ndarray], numbers: np.ndarray, batch_size: int, adam: bool, examples: Examples
) -> np.ndarray:
    def column(name: str) -> Tensor:
        return torch.as_tensor(values[name].astype(np.float32))[:, None, None]

    rate, momentum, decay, dropout = map(column, ("lr", "momentum", "weight_decay", "dropout"))
    cosine = torch.as_tensor(values["schedule"] == "cosine")[:, None, None]
    tanh = torch.as_tensor(values["activation"] == "tanh")[:, None, None]
    hidden = int(values["width"].max())
    kept = (torch.arange(hidden) < column("width")).float()  # [C, 1, H]
    weights = _initial(numbers, examples.inputs.shape[1], hidden, int(examples.labels.max()) + 1, kept)
    first, second = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    generator = torch.Generator().manual_seed(SEED)
    losses = np.empty((len(numbers), MAX_RESOURCE))
    step = 0
    for epoch in range(MAX_RESOURCE):
        order = torch.randperm(len(examples.labels), generator=generator)
        factor = torch.where(cosine, 0.5 * (1 + np.cos(np.pi * epoch / MAX_RESOURCE)), 1.0)
        for batch in order.split(batch_size):
            step += 1
            mask = (torch.rand(1, len(batch), hidden, generator=generator) >= dropout) / (1 - dropout) * kept
            gradients = _gradients(weights, examples.inputs[batch], examples.labels[batch], mask, tanh)
            for i, gradient in enumerate(gradients):
                if adam:
                    first[i] = 0.9 * first[i] + 0.1 * gradient
                    second[i] = 0.99 * second[i] + 0.01 * gradient**2
                    spread = (second[i] / (1 - 0.99**step)).sqrt() + 1e-8
                    direction = 0.1 * first[i] / (1 - 0.9**step) / spread
                else:
                    first[i] = direction = momentum * first[i] + gradient
                weights[i] -= rate * factor * (direction + decay * weights[i])
        losses[:, epoch] = _errors(weights, examples, kept, tanh)
    return losses


def _initial(numbers: np.ndarray, inputs: int, hidden: int, classes: int, kept: Tensor) -> list[Tensor]:
    first, last = torch.empty(len(numbers), inputs, hidden), torch.empty(len(numbers), hidden, classes)
    for i, number in enumerate(numbers):
        generator = torch.Generator().manual_seed(int(number) + 1)
        first[i] = torch.randn(inputs, hidden, generator=generator) * inputs**-0.5
        last[i] = torch.randn(hidden, classes, generator=generator)
    zeros = torch.zeros(len(numbers), 1, hidden), torch.zeros(len(numbers), 1, classes)
    return [first, zeros[0], last * kept.sum(dim=2, keepdim=True) ** -0.5, zeros[1]]


def _activate(before: Tensor, tanh: Tensor) -> Tensor:
    return torch.where(tanh, before.tanh(), before.relu())


def _gradients(weights: list[Tensor], x: Tensor, y: Tensor, mask: Tensor, tanh: Tensor) -> list[Tensor]:
    """Return the gradients of the mean cross-entropy; inputs [B, F], labels [B], mask [C, B, H]."""
    first, first_bias, last, last_bias = weights
    before = torch.matmul(x, first) + first_bias
    after = _activate(before, tanh)
    masked = after * mask
    logits = torch.bmm(masked, last) + last_bias
    error = (logits.softmax(dim=2) - functional.one_hot(y, logits.shape[2])) / len(y)
    slope = torch.where(tanh, 1 - after**2, (before > 0).float())
    back = torch.bmm(error, last.transpose(1, 2)) * mask * slope
    return [
        torch.matmul(x.T, back), back.sum(dim=1, keepdim=True),
        torch.bmm(masked.transpose(1, 2), error), error.sum(dim=1, keepdim=True),
    ]  # fmt: skip


def _errors(weights: list[Tensor], examples: Examples, kept: Tensor, tanh: Tensor) -> np.ndarray:
    first, first_bias, last, last_bias = weights
    after = _activate(torch.matmul(examples.other_inputs, first) + first_bias, tanh) * kept
    logits = torch.bmm(after, last) + last_bias
    wrong = (logits.argmax(dim=2) != examples.other_labels).double().mean(dim=1)
    return torch.where(logits.isfinite().all(dim=2).all(dim=1), wrong, torch.inf).numpy()
