"""What a pruning method is asked for, and the means it has."""

import dataclasses
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.networks.layers import matching, parse_names
from kondense.prune.config import PruneConfig
from kondense.prune.fractions import parse_fractions
from kondense.prune.layers import resolve_fractions
from kondense.training.checkpoint import Checkpoint
from kondense.training.device import choose_device
from kondense.training.fit import fit
from kondense.training.losses import Loss, cross_entropy
from kondense.training.masking import Masking


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a method, resolved on a network.

    Attributes:
        config: the stage's parameters.
        dataset: methods may read its training and validation splits.
        loss: what fine-tuning minimises, with the teacher's part when there is a teacher.
        checkpoint: where the phases of training resume from.
        fractions: fraction removed from a layer, by module name, where ``config.layers`` gives one.
        excluded: module names of the layers that stay whole.
        masked: names of the weights whose zeros an earlier stage pruned.
        floor: least validation accuracy that ``max_validation_drop`` allows; 0 where it sets no bound.
        model: the model as it came, with its lineage; not to be changed.
        dataset_digest: of the Dataset artifact.
        curve: the points of all phases of training so far, ``epoch`` counted through.
    """

    config: PruneConfig
    dataset: Dataset
    loss: Loss = cross_entropy(0.0)
    checkpoint: Checkpoint | None = None
    fractions: Mapping[str, float] = dataclasses.field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    masked: tuple[str, ...] = ()
    floor: float = 0.0
    model: Model | None = None
    dataset_digest: str = ""
    curve: list[Mapping[str, float]] = dataclasses.field(default_factory=list)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        return self.dataset.shape

    @property
    def device(self) -> torch.device:
        """Where to compute; the network is on the CPU between calls."""
        return choose_device(self.config.device)

    def masks(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the masks of the weights that an earlier stage pruned, in their shapes of now."""
        state = module.state_dict()
        return {name: state[name] != 0 for name in self.masked}

    def tune(
        self,
        module: nn.Module,
        phase: str,
        epochs: int,
        *,
        horizon: int = 0,
        loss: Loss | None = None,
        masks: Mapping[str, Tensor] | None = None,
        masking: Masking | None = None,
        counted: bool = True,
    ) -> float:
        """Train ``module`` in place through the shared loop; it ends on the CPU in evaluation mode.

        Args:
            module: the network.
            phase: names the phase's checkpoints and seeds its randomness; unique within the run.
            epochs: to train now.
            horizon: epochs that the learning rate's schedule spans; 0 means ``epochs``.
            loss: the request's when not given.
            masks: see ``kondense.training.fit.fit``.
            masking: the same.
            counted: whether the phase's points join the curve; not for trials that are thrown away.

        Returns:
            The accuracy on the validation split after the last epoch.
        """
        config = dataclasses.replace(
            self.config,
            optimizer=self.config.training_optimizer,
            epochs=epochs,
            max_epochs=horizon or epochs,
            seed=(self.config.seed + zlib.crc32(phase.encode())) % 2**31,
        )
        child = self.checkpoint.child(phase) if self.checkpoint else None
        points = fit(
            module, self.dataset, config, loss=loss or self.loss, masks=masks, masking=masking, checkpoint=child
        )
        if counted:
            done = float(len(self.curve))
            self.curve.extend([point | {"epoch": done + point["epoch"]} for point in points])
        return points[-1]["validation_accuracy"]


def resolve(
    config: PruneConfig,
    model: Model,
    dataset: Dataset,
    loss: Loss | None = None,
    checkpoint: Checkpoint | None = None,
    *,
    dataset_digest: str = "",
) -> Request:
    """Return the request that ``config`` means for a model; cross-entropy when no loss is given.

    Raises:
        ValueError: ``layers`` or ``exclude`` names no layer, or both name the same one.
    """
    excluded = frozenset(matching(model.module, "exclude", parse_names(config.exclude)))
    fractions = resolve_fractions(model.module, parse_fractions(config.layers))
    for name in sorted(excluded & fractions.keys()):
        raise InputError(f"a layer must be in layers or in exclude, but {name!r} is in both.")
    return Request(
        config,
        dataset,
        loss or cross_entropy(config.label_smoothing),
        checkpoint,
        fractions=fractions,
        excluded=excluded,
        masked=model.masked,
        model=model,
        dataset_digest=dataset_digest,
    )
