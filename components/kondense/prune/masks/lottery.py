"""Lottery tickets: prune trained weights, rewind the others to an early epoch, train them, and repeat.

Every step prunes the smallest weights of the last trained network and resets the others to their values after
``rewind_epochs`` epochs of the model's training, which is repeated from its lineage record. The result of training them
for ``epochs`` epochs is the ticket. Its control has the same mask, but weights of another initialisation, and trains
``rewind_epochs`` epochs longer, so that both train equally long in total.

Source: Frankle and Carbin 2019, section 1 (iterative pruning, and the random re-initialisation as the control);
Frankle et al. 2020, section 3 (rewinding to an early epoch instead of epoch 0).
"""

import dataclasses
import zlib
from typing import Any

from torch import Tensor, nn

from kondense.errors import InputError
from kondense.logging import LOG
from kondense.networks.build import build
from kondense.networks.state import load_state
from kondense.prune.context import Context
from kondense.prune.masks import magnitude
from kondense.prune.masks.masks import MaskPruner, Score, maskable_layers
from kondense.prune.pruner import Masks, Pruner
from kondense.prune.schedule import Ramp
from kondense.training.fit import fit
from kondense.training.masking import zero_masked
from kondense.training.settings import TrainingConfig
from kondense.training.transform import is_imported

METHOD = {
    "name": "lottery",
    "kind": "weights",
    "summary": "prunes trained weights, rewinds the rest to an early epoch and retrains",
    "function": "prepare",
    "layer_adaptive": True,
    "fixed_sparsity": True,
}


def prepare(module: nn.Module, context: Context) -> Pruner:
    """Return the method that searches for winning tickets.

    Raises:
        InputError: the model's training cannot be repeated, it has fewer than ``rewind_epochs`` epochs, or every layer
            is excluded.
    """
    pruner = LotteryPruner(module, context, magnitude.score, maskable_layers(module, context))
    pruner.check()
    return pruner


class LotteryPruner(MaskPruner):
    """Prunes and rewinds one network step by step; records the accuracies of tickets and controls."""

    def __init__(self, module: nn.Module, context: Context, score: Score, layers: list[str]) -> None:
        super().__init__(module, context, score, layers)
        assert context.model is not None
        self.model = context.model
        self.early: dict[str, Tensor] = {}
        self.tickets: list[dict[str, float]] = []

    def check(self) -> None:
        """Raise InputError unless the model's training can be repeated up to the rewinding epoch."""
        config, lineage = self.context.config, self.model.lineage
        stages = [record["stage"] for record in lineage]
        if stages != ["train"] or lineage[0]["config"]["import_uri"] or is_imported(self.model):
            raise InputError(
                "lottery needs a model as the train stage trained it, but got"
                f" {' > '.join(stages) or 'a model without lineage'}{' of an import' if stages == ['train'] else ''}."
            )
        if self.context.dataset_digest not in ("", lineage[0]["inputs"]["dataset"]):
            raise InputError("lottery needs the dataset that the model was trained on, but got another one.")
        epochs = lineage[0]["config"]["epochs"]
        if config.rewind_epochs >= epochs:
            raise InputError(
                f"rewind_epochs must be less than the {epochs} epochs that the model was trained for,"
                f" but got {config.rewind_epochs}."
            )

    def steps(self, requested: int, epochs: int) -> int:
        """Return the number of tickets; each has all of the epochs."""
        return requested or 4

    def epochs_by_step(self, epochs: int, steps: int) -> list[int]:
        """Return the epochs of each ticket."""
        return [epochs] * steps

    def masking(self, ramp: Ramp) -> None:
        """Return None: a ticket is trained from its rewound weights."""

    def step(self, share: float) -> Masks:
        """Prune the weights as trained last, then rewind the others."""
        if not self.early:
            self.early = self._early_state()
        masks = super().step(share)
        load_state(self.module, self.early)
        zero_masked(self.module, masks)
        return masks

    def tuned(self, share: float, validation_accuracy: float) -> None:
        """Train the control of the latest ticket."""
        config, number = self.context.config, len(self.tickets) + 1
        control = build(self.model.network, seed=(config.seed + zlib.crc32(b"control")) % 2**31).eval()
        zero_masked(control, self.kept)
        accuracy = self.context.session.train(
            control,
            f"control-{number}",
            epochs=config.epochs + config.rewind_epochs,
            horizon=config.horizon + config.rewind_epochs,
            masks=self.kept,
            counted=False,
        )
        sparsity = share * config.sparsity
        self.tickets.append({"sparsity": sparsity, "ticket": validation_accuracy, "control": accuracy})
        LOG.info(f"ticket sparsity={sparsity:.4f} validation_accuracy={validation_accuracy:.4f} control={accuracy:.4f}")

    def details(self) -> dict[str, Any]:
        """Return the accuracies of all tickets and controls."""
        return {"tickets": self.tickets}

    def _early_state(self) -> dict[str, Tensor]:
        """Repeat the model's training up to the rewinding epoch."""
        context, record = self.context, self.model.lineage[0]["config"]
        rewind = context.config.rewind_epochs
        names = {field.name for field in dataclasses.fields(TrainingConfig)}
        settings = TrainingConfig(**{name: value for name, value in record.items() if name in names})
        module = build(self.model.network, seed=settings.seed)
        if rewind:
            config, checkpoint = context.config, context.session.checkpoint
            settings = dataclasses.replace(
                settings,
                epochs=rewind,
                max_epochs=settings.horizon,
                device=config.device,
                devices=config.devices,
            )
            child = checkpoint.child("rewind") if checkpoint else None
            fit(module, context.dataset, settings, checkpoint=child)
        state = module.eval().state_dict()  # with the heads that only training has
        return {name: state[name].clone() for name in self.module.state_dict()}
