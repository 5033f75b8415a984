"""The training phases of one stage."""

import dataclasses
import zlib
from collections.abc import Mapping

from torch import Tensor, nn

from kondense.data.dataset import Dataset
from kondense.training.checkpoint import Checkpoint
from kondense.training.fit import fit
from kondense.training.losses import Loss
from kondense.training.masking import Masking
from kondense.training.settings import TrainingConfig


@dataclasses.dataclass(frozen=True)
class Session:
    """Trains the phases of one stage; every phase is resumable and has randomness of its own.

    Attributes:
        dataset: training uses its training split, and measures accuracy on its validation split.
        config: the training parameters.
        loss: the training objective, including the teacher's part.
        checkpoint: parent of the phases' checkpoints.
        curve: the points of all counted phases so far; ``epoch`` runs on from phase to phase.
    """

    dataset: Dataset
    config: TrainingConfig
    loss: Loss
    checkpoint: Checkpoint | None = None
    curve: list[Mapping[str, float]] = dataclasses.field(default_factory=list)

    def train(
        self,
        module: nn.Module,
        phase: str,
        *,
        epochs: int = 0,
        horizon: int = 0,
        loss: Loss | None = None,
        masks: Mapping[str, Tensor] | None = None,
        masking: Masking | None = None,
        counted: bool = True,
    ) -> float:
        """Train ``module`` in place; it ends on the CPU in evaluation mode.

        Args:
            module: the network.
            phase: names the phase's checkpoints and seeds its randomness; unique within the stage.
            epochs: number of epochs; 0: those of the config, on its schedule.
            horizon: epochs that the learning rate's schedule spans; 0: ``epochs``.
            loss: default: the session's.
            masks: see ``kondense.training.fit.fit``.
            masking: see ``kondense.training.fit.fit``.
            counted: whether the phase's points join the curve; false for trials.

        Returns:
            The accuracy on the validation split after the last epoch.
        """
        config = dataclasses.replace(self.config, seed=(self.config.seed + zlib.crc32(phase.encode())) % 2**31)
        if epochs:
            config = dataclasses.replace(config, epochs=epochs, max_epochs=horizon or epochs)
        child = self.checkpoint.child(phase) if self.checkpoint else None
        points = fit(
            module, self.dataset, config, loss=loss or self.loss, masks=masks, masking=masking, checkpoint=child
        )
        if counted:
            done = float(len(self.curve))
            self.curve.extend([point | {"epoch": done + point["epoch"]} for point in points])
        return points[-1]["validation_accuracy"]
