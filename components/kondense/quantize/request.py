"""What a quantization method is asked for, and the means it has."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.quantize.config import QuantizeConfig
from kondense.training.checkpoint import Checkpoint
from kondense.training.fit import fit
from kondense.training.losses import Loss, cross_entropy


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a method.

    Attributes:
        config: the stage's parameters.
        dataset: methods calibrate and train on its training split and may measure on its validation split.
        loss: what training minimises, the teacher's part included.
        teacher: the model whose logits those are; None for the model that is quantized.
        checkpoint: where the phases of training resume from.
        curve: the points of all phases of training so far, ``epoch`` counted through.
        details: JSON values that join the details of the stage's lineage record.
        shortfalls: what was asked for and not met; the model is written all the same, as the closest there is.
    """

    config: QuantizeConfig
    dataset: Dataset
    loss: Loss = cross_entropy(0.0)
    teacher: Model | None = None
    checkpoint: Checkpoint | None = None
    curve: list[Mapping[str, float]] = dataclasses.field(default_factory=list)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    shortfalls: list[str] = dataclasses.field(default_factory=list)

    def calibration_batches(self) -> list[Tensor]:
        """Draw the calibration images from the training split and normalise them.

        Raises:
            ValueError: they are all of one class, though the dataset has more.
        """
        split = self.dataset.train
        generator = torch.Generator().manual_seed(self.config.seed)
        chosen_N = torch.randperm(len(split), generator=generator)[: self.config.calibration_images]
        classes = split.labels[chosen_N].unique()
        if len(classes) < min(2, len(self.dataset.classes)):
            raise InputError(
                f"calibration images must show at least 2 classes, but all {len(chosen_N)} are of class"
                f" {self.dataset.classes[int(classes[0])]!r}."
            )
        return [self.dataset.normalise(split.images[part_N]) for part_N in chosen_N.split(self.config.batch_size)]

    def train(
        self,
        module: nn.Module,
        phase: str,
        *,
        epochs: int = 0,
        loss: Loss | None = None,
        masks: Mapping[str, Tensor] | None = None,
    ) -> float:
        """Train ``module`` in place through the shared loop; it ends on the CPU in evaluation mode.

        Args:
            module: the network.
            phase: names the phase's checkpoints and seeds its randomness; unique within the run.
            epochs: to train; the config's, on the config's schedule, when 0.
            loss: the request's when not given.
            masks: see ``kondense.training.fit.fit``.

        Returns:
            The accuracy on the validation split after the last epoch.
        """
        seed = (self.config.seed + zlib.crc32(phase.encode())) % 2**31
        config = dataclasses.replace(self.config, seed=seed)
        if epochs:
            config = dataclasses.replace(config, epochs=epochs, max_epochs=epochs)
        child = self.checkpoint.child(phase) if self.checkpoint else None
        points = fit(module, self.dataset, config, loss=loss or self.loss, masks=masks, checkpoint=child)
        done = float(len(self.curve))
        self.curve.extend([point | {"epoch": done + point["epoch"]} for point in points])
        return points[-1]["validation_accuracy"]
