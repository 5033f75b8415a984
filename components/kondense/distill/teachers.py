"""One to three teachers as one: their softened outputs are averaged.

Shapes: B images in a batch, N images of the training split, C channels, H height, W width, K classes.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.data.dataset import Dataset
from kondense.distill.feature_loss import Hint
from kondense.errors import InputError
from kondense.measuring.accuracy import accuracy, predict


def weigh(kind: str, modules: Sequence[nn.Module], dataset: Dataset, device: torch.device) -> list[float]:
    """Return the weights of the teachers, which add up to 1.

    Args:
        kind: ``uniform``, or ``accuracy`` for the accuracy on the validation split above that of chance.
        modules: the teachers; they end on the CPU.
        dataset: gives the validation split.
        device: where they are measured.

    Raises:
        ValueError: no teacher is better than chance.
    """
    if kind == "uniform" or len(modules) == 1:
        return [1.0 / len(modules)] * len(modules)
    labels_N, chance = dataset.validation.labels, 1.0 / len(dataset.classes)
    found = [
        accuracy(predict(module.to(device), dataset.validation, dataset, device=device), labels_N) for module in modules
    ]
    for module in modules:
        module.to("cpu")
    above = [max(0.0, each - chance) for each in found]
    if not sum(above):
        raise InputError(f"some teacher must be better than chance ({chance:.4f}), but their accuracies are {found}.")
    return [each / sum(above) for each in above]


class Teachers:
    """The teachers' outputs for a batch: the logits of each, then what the hint keeps of the first one's layers.

    Args:
        modules: the teachers; put in evaluation mode, without gradients.
        weights: of each, as ``weigh`` gives them.
        hint: of the method, if it has one.
        layers: outputs of the first teacher's watched layers, by name, after a pass.
    """

    def __init__(
        self, modules: Sequence[nn.Module], weights: Sequence[float], hint: Hint | None, layers: Mapping[str, Tensor]
    ) -> None:
        self.modules, self.weights, self.hint, self.layers = list(modules), list(weights), hint, layers
        for module in self.modules:
            module.eval().requires_grad_(False)

    @torch.no_grad()
    def outputs(self, images_BCHW: Tensor) -> list[Tensor]:
        """Return the outputs for a batch, computed where the images lie; [B, ...] each."""
        logits = [module.to(images_BCHW.device)(images_BCHW) for module in self.modules]
        kept = self.hint.keep([self.layers[pair.teacher.name] for pair in self.hint.pairs]) if self.hint else []
        return [*logits, *kept]

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
