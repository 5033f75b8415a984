"""The inputs of a pruning method, for tests that call one."""

from typing import Any

from kondense.data.dataset import Dataset
from kondense.prune.config import PruneConfig
from kondense.prune.context import Context, make_session
from kondense.training.checkpoint import Checkpoint
from kondense.training.losses import Loss


def make_context(
    config: PruneConfig,
    dataset: Dataset,
    *,
    loss: Loss | None = None,
    checkpoint: Checkpoint | None = None,
    **values: Any,
) -> Context:
    """Return the context of a method; ``values`` are further attributes of it."""
    return Context(config, make_session(config, dataset, loss, checkpoint), **values)
