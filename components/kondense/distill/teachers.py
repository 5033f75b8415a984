"""One to three teachers whose softened outputs are averaged.

Shapes: B images in a batch, N images of the training split, C channels, H height, W width, K classes.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.data.dataset import Dataset
from kondense.distill.feature_loss import FeatureLoss
from kondense.errors import InputError
from kondense.measuring.accuracy import accuracy, predict
from kondense.measuring.memory_format import taken_format


def weigh(kind: str, modules: Sequence[nn.Module], dataset: Dataset, device: torch.device) -> list[float]:
    """Return the weights of the teachers, which add up to 1.

    Args:
        kind: ``uniform``, or ``accuracy`` for the validation accuracy above chance.
        modules: the teachers; they end on the CPU.
        dataset: its validation split is measured.
        device: computes the predictions.

    Raises:
        InputError: no teacher is better than chance.
    """
    if kind == "uniform" or len(modules) == 1:
        return [1.0 / len(modules)] * len(modules)
    labels_N, chance = dataset.validation.labels, 1.0 / len(dataset.classes)
    accuracies = [
        accuracy(predict(module.to(device), dataset.validation, dataset, device=device), labels_N) for module in modules
    ]
    for module in modules:
        module.to("cpu")
    above = [max(0.0, value - chance) for value in accuracies]
    if not sum(above):
        raise InputError(f"a teacher must be better than chance ({chance:.4f}), but the accuracies are {accuracies}.")
    return [value / sum(above) for value in above]


class Teachers:
    """The teachers' outputs for a batch: the logits of each, then the targets from the first teacher's layers.

    Args:
        modules: the teachers; put in evaluation mode, without gradients.
        weights: of the teachers (see ``weigh``).
        feature_loss: the method's part, if any.
        layers: the latest outputs of the first teacher's hooked layers, by name.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        weights: Sequence[float],
        feature_loss: FeatureLoss | None = None,
        layers: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.modules, self.weights = list(modules), list(weights)
        self.feature_loss, self.layers = feature_loss, {} if layers is None else layers
        self.formats: list[torch.memory_format] = []  # of the images that each takes
        for module in self.modules:
            module.eval().requires_grad_(False)

    @torch.no_grad()
    def outputs(self, images_BCHW: Tensor) -> list[Tensor]:
        """Return the outputs for a batch, [B, ...] each, on the device of the images."""
        modules = [module.to(images_BCHW.device) for module in self.modules]
        if not self.formats:
            self.formats = [taken_format(module, images_BCHW) for module in modules]
        logits = [
            module(images_BCHW.contiguous(memory_format=taken))
            for module, taken in zip(modules, self.formats, strict=True)
        ]
        if self.feature_loss is None:
            return logits
        layers = [self.layers[pair.teacher.name] for pair in self.feature_loss.pairs]
        return [*logits, *self.feature_loss.targets(layers)]

    def log_probabilities(self, outputs: Sequence[Tensor], temperature: float) -> Tensor:
        """Return the logarithm of the weighted mean of the softened outputs, [B, K].

        Source: Hinton et al. 2015, section 2, the arithmetic mean of an ensemble's distributions.
        """
        logits = outputs[: len(self.modules)]
        if len(logits) == 1:
            return F.log_softmax(logits[0].float() / temperature, dim=1)
        terms = [
            F.log_softmax(logits_BK.float() / temperature, dim=1) + math.log(weight)
            for logits_BK, weight in zip(logits, self.weights, strict=True)
            if weight
        ]
        return torch.logsumexp(torch.stack(terms), dim=0)
