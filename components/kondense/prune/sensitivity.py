"""The accuracy with each layer pruned alone.

Source: Han et al. 2015, section 4.1, figure 6. Deviation: batch norms are re-estimated and the consumers of a pruned
layer reconstructed, as in the pruning itself.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import nn

from kondense.errors import InputError
from kondense.logging import LOG
from kondense.prune.accuracy_bound import tried_accuracy
from kondense.prune.channels import ChannelPruner
from kondense.prune.context import Context
from kondense.prune.masks.masks import MaskPruner
from kondense.prune.pruner import Prepare, Pruner

FRACTIONS = (0.25, 0.5, 0.75, 0.9)


def scanned_layers(pruner: Pruner) -> list[str]:
    """Return the layers that can be pruned one at a time; a group of channels is named after its first layer.

    Raises:
        InputError: the method prunes no single layers.
    """
    if isinstance(pruner, ChannelPruner):
        return list(pruner.original)
    if isinstance(pruner, MaskPruner):
        return list(pruner.layers)
    raise InputError(f"sensitivity needs a method that scores channels or weights, but got {type(pruner).__name__}.")


def scan(prepare: Prepare, module: nn.Module, context: Context, layers: Iterable[str]) -> dict[str, Any]:
    """Return the validation accuracy with each layer pruned alone at several fractions.

    Args:
        prepare: prepares the method.
        module: the network; not changed.
        context: the request; its sparsity is ignored.
        layers: names of the layers.

    Returns:
        ``of`` ("sparsity") and ``rows``: a ``layer`` and its ``points``, pairs of fraction and accuracy.
    """
    config = dataclasses.replace(
        context.config, sparsity=0.0, trial_epochs=0, sparse_epochs=0, target="macs", max_validation_drop=1.0
    )
    rows = []
    for layer in layers:
        points = []
        for fraction in FRACTIONS:
            single = dataclasses.replace(context, config=config, fractions={layer: fraction})
            points.append([fraction, tried_accuracy(prepare, module, single, "")])
        rows.append({"layer": layer, "points": points})
        LOG.info(f"sensitivity {layer} " + " ".join(f"{fraction}:{accuracy:.4f}" for fraction, accuracy in points))
    return {"of": "sparsity", "rows": rows}
