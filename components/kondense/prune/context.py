"""The inputs of a pruning method, resolved on a network."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.networks.layers import TYPES, matching, parse_names
from kondense.prune.config import PruneConfig
from kondense.prune.fractions import parse_fractions
from kondense.training.checkpoint import Checkpoint
from kondense.training.device import choose_device
from kondense.training.losses import Loss, label_loss
from kondense.training.session import Session


@dataclasses.dataclass(frozen=True)
class Context:
    """The inputs and helpers that every pruning method receives.

    Attributes:
        config: the stage's parameters.
        session: trains; gives the dataset, the loss and the checkpoint.
        fractions: fraction to remove from a layer, by module name, where ``config.layers`` gives one.
        excluded: module names of the layers that are not pruned.
        masked: names of the weights whose zeros an earlier stage pruned.
        floor: least validation accuracy that ``max_validation_drop`` allows; 0: no bound.
        model: the unpruned model with its lineage; read only.
        dataset_digest: digest of the Dataset artifact; empty: unknown.
    """

    config: PruneConfig
    session: Session
    fractions: Mapping[str, float] = dataclasses.field(default_factory=dict)
    excluded: frozenset[str] = frozenset()
    masked: tuple[str, ...] = ()
    floor: float = 0.0
    model: Model | None = None
    dataset_digest: str = ""

    @property
    def dataset(self) -> Dataset:
        """The dataset; methods may read its training and validation splits."""
        return self.session.dataset

    @property
    def device(self) -> torch.device:
        """The device to compute on; the network is on the CPU between calls."""
        return choose_device(self.config.device)

    def masks(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the masks of the weights that an earlier stage pruned, in their current shapes."""
        state = module.state_dict()
        return {name: state[name] != 0 for name in self.masked}


def make_session(
    config: PruneConfig, dataset: Dataset, loss: Loss | None = None, checkpoint: Checkpoint | None = None
) -> Session:
    """Return the session of a prune stage; default ``loss``: cross-entropy."""
    training = dataclasses.replace(config, optimizer=config.training_optimizer)
    return Session(dataset, training, loss or label_loss(config, dataset), checkpoint)


def resolve(config: PruneConfig, model: Model, session: Session, *, dataset_digest: str = "") -> Context:
    """Resolve the layer names of ``config`` on a model.

    Raises:
        InputError: ``layers`` or ``exclude`` names no layer, or both name the same one.
    """
    excluded = frozenset(matching(model.module, "exclude", parse_names(config.exclude)))
    fractions = resolve_fractions(model.module, parse_fractions(config.layers))
    for name in sorted(excluded & fractions.keys()):
        raise InputError(f"a layer must be in layers or in exclude, but {name!r} is in both.")
    return Context(
        config,
        session,
        fractions=fractions,
        excluded=excluded,
        masked=model.masked,
        model=model,
        dataset_digest=dataset_digest,
    )


def resolve_fractions(module: nn.Module, fractions: Mapping[str, float]) -> dict[str, float]:
    """Return the fraction of every prunable layer that ``fractions`` names; a module outweighs a type.

    Raises:
        InputError: an entry that names no layer; the right ones are listed.
    """
    resolved: dict[str, float] = {}
    # Types first, then modules from the outermost to the innermost: more specific entries overwrite others.
    for name in sorted(fractions, key=lambda name: (name not in TYPES, name.count("."))):
        for layer in matching(module, "layers", [name]):
            resolved[layer] = fractions[name]
    return resolved
