"""Lottery tickets: prune what has been trained, go back to an early epoch, train what is left, again and again.

Every step prunes the smallest weights of the network trained last and puts the others back to what they were after
``rewind_epochs`` epochs of the model's own training, which is repeated from its lineage record. What is trained
from there for ``epochs`` epochs is the ticket. Its control has the same mask, but weights of another initialisation,
and trains ``rewind_epochs`` longer, so that both have seen as much in all.

Source: Frankle and Carbin 2019, section 1 (iterative pruning, and the random re-initialisation as the control);
Frankle et al. 2020, section 3 (rewinding to an early epoch instead of epoch 0).
"""

import copy
import dataclasses
import zlib
from typing import Any

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.logging import LOG
from kondense.networks.build import build
from kondense.prune.masks import magnitude
from kondense.prune.masks.masks import MaskPruner, Score, maskable_layers
from kondense.prune.method import Masks, Method
from kondense.prune.request import Request
from kondense.prune.schedule import Ramp
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig


def prepare(module: nn.Module, request: Request) -> Method:
    """Return the method that looks for winning tickets.

    Raises:
        ValueError: the model's training cannot be repeated, the rewinding is no early epoch of it, or every layer is
            excluded.
    """
    pruner = LotteryPruner(module, request, magnitude.score, maskable_layers(module, request))
    pruner.check()
    return pruner


class LotteryPruner(MaskPruner):
    """Rewinds one network, step by step; remembers how tickets and controls did."""

    def __init__(self, module: nn.Module, request: Request, score: Score, layers: list[str]) -> None:
        super().__init__(module, request, score, layers)
        assert request.model is not None
        self.model = request.model
        self.early: dict[str, Tensor] = {}
        self.tickets: list[dict[str, float]] = []

    def check(self) -> None:
        """Raise ValueError unless the model's training can be repeated up to the epoch of the rewinding."""
        config, lineage = self.request.config, self.model.lineage
        stages = [record["stage"] for record in lineage]
        if stages != ["train"] or lineage[0]["config"]["import_uri"]:
            raise InputError(
                "lottery needs a model that the train stage trained and no stage has changed since, but got"
                f" {' > '.join(stages) or 'a model without lineage'}{' of an import' if stages == ['train'] else ''}."
            )
        if lineage[0]["inputs"]["dataset"] != self.request.dataset_digest:
            raise InputError("lottery needs the dataset that the model was trained on, but got another one.")
        epochs = lineage[0]["config"]["epochs"]
        if config.rewind_epochs >= epochs:
            raise InputError(
                f"rewind_epochs must be less than the {epochs} epochs that the model was trained for,"
                f" but got {config.rewind_epochs}."
            )

    def steps(self, asked: int, epochs: int) -> int:
        """Return the number of tickets; each has all of the epochs."""
        return asked or 4

    def epochs_by_step(self, epochs: int, steps: int) -> list[int]:
        """Return the epochs of each ticket."""
        return [epochs] * steps

    def masking(self, ramp: Ramp) -> None:
        """Return nothing: a ticket is trained from its rewound weights."""

    def step(self, share: float) -> Masks:
        """Prune the weights as trained last, then put the others back."""
        if not self.early:
            self.early = self._early_state()
        masks = super().step(share)
        self.module.load_state_dict(self.early)
        _apply(self.module, masks)
        return masks

    def tuned(self, share: float, validation_accuracy: float) -> None:
        """Train the control of the ticket that has just been trained."""
        config, number = self.request.config, len(self.tickets) + 1
        control = build(self.model.network, seed=(config.seed + zlib.crc32(b"control")) % 2**31).eval()
        _apply(control, self.kept)
        found = self.request.tune(
            control,
            f"control-{number}",
            config.epochs + config.rewind_epochs,
            horizon=config.horizon + config.rewind_epochs,
            masks=self.kept,
            counted=False,
        )
        sparsity = share * config.sparsity
        self.tickets.append({"sparsity": sparsity, "ticket": validation_accuracy, "control": found})
        LOG.info(f"ticket sparsity={sparsity:.4f} validation_accuracy={validation_accuracy:.4f} control={found:.4f}")

    def details(self) -> dict[str, Any]:
        """Return the accuracies of all tickets and controls."""
        return {"tickets": self.tickets}

    def _early_state(self) -> dict[str, Tensor]:
        """Train anew as the model was trained, up to the epoch of the rewinding."""
        request, record = self.request, self.model.lineage[0]["config"]
        rewind = request.config.rewind_epochs
        names = {field.name for field in dataclasses.fields(TrainingConfig)}
        settings = TrainingConfig(**{name: value for name, value in record.items() if name in names})
        module = build(self.model.network, seed=settings.seed)
        if rewind:
            device = request.config.device
            settings = dataclasses.replace(settings, epochs=rewind, max_epochs=settings.horizon, device=device)
            child = request.checkpoint.child("rewind") if request.checkpoint else None
            fit(module, request.dataset, settings, checkpoint=child)
        return copy.deepcopy(module.eval().state_dict())


@torch.no_grad()
def _apply(module: nn.Module, masks: Masks) -> None:
    for name, mask in masks.items():
        module.get_parameter(name).masked_fill_(~mask, 0.0)
