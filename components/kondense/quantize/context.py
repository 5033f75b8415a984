"""The inputs and helpers of a quantization method, and the facts that it reports."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.data.at_once import at_once
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.measuring.accuracy import accuracy, predict
from kondense.quantize.config import QuantizeConfig
from kondense.training.losses import Loss
from kondense.training.session import Session


@dataclasses.dataclass
class Context:
    """The inputs and helpers that every quantization method receives, and the facts that it reports.

    Attributes:
        config: the stage's parameters.
        session: trains phases; its loss includes the teacher's part.
        teacher: the model that ``max_validation_drop`` refers to; None: the model to quantize.
        summary: the step in words, set by the method; empty: a default.
        details: JSON values for the lineage record, set by the method.
        shortfall: why the request was not met, set by the method; the model is saved all the same.
    """

    config: QuantizeConfig
    session: Session
    teacher: Model | None = None
    summary: str = ""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    shortfall: str = ""

    @property
    def dataset(self) -> Dataset:
        """The dataset; methods calibrate and train on its training split only."""
        return self.session.dataset

    def calibration_batches(self) -> Sequence[Tensor]:
        """Return the calibration images (see ``calibration_batches``)."""
        return calibration_batches(self.dataset, self.config)

    def train(
        self, module: nn.Module, phase: str, *, loss: Loss | None = None, masks: Mapping[str, Tensor] | None = None
    ) -> float:
        """Train ``module`` in place with the config's epochs (see ``Session.train``)."""
        return self.session.train(module, phase, loss=loss, masks=masks)

    def validation_accuracy(self, module: nn.Module) -> float:
        """Return the accuracy of ``module`` on the validation split."""
        return accuracy(predict(module, self.dataset.validation, self.dataset), self.dataset.validation.labels)


Quantizer = Callable[[Model, Context], Model]


class CalibrationBatches(Sequence[Tensor]):
    """Batches of normalised images [N, C, H, W]; each is made when it is asked for, so that one is in memory."""

    def __init__(self, dataset: Dataset, parts: Sequence[Tensor]) -> None:
        """Take the indices of each batch in the training split."""
        self._dataset, self._parts = dataset, parts

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        """Return one batch, or the batches of a slice."""
        if isinstance(index, slice):
            return CalibrationBatches(self._dataset, self._parts[index])
        return self._dataset.normalise(self._dataset.train.images[self._parts[index]])


def calibration_batches(dataset: Dataset, config: QuantizeConfig) -> Sequence[Tensor]:
    """Return calibration images of the training split, normalised; the same ones for equal arguments.

    Raises:
        InputError: they are all of one class, although the dataset has several.
    """
    split = dataset.train
    generator = torch.Generator().manual_seed(config.seed)
    chosen_N = torch.randperm(len(split), generator=generator)[: config.calibration_images]
    classes = split.labels[chosen_N].unique()
    if len(classes) < min(2, len(dataset.classes)):
        raise InputError(
            f"calibration images must show at least 2 classes, but all {len(chosen_N)} are of class"
            f" {dataset.classes[int(classes[0])]!r}."
        )
    return CalibrationBatches(dataset, chosen_N.split(at_once(dataset.shape, config.batch_size)))
