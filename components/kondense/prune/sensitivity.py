"""How much accuracy each layer costs: the layers are pruned one at a time.

Source: Han et al. 2015, section 4.1, figure 6. Deviation: batch norms are re-estimated, and the layers behind
a pruned one make up for it (``reconstruct``), as they do when the network is pruned in earnest.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from kondense.errors import InputError
from kondense.logging import LOG
from kondense.prune.accuracy_bound import tried_accuracy
from kondense.prune.channels import ChannelPruner
from kondense.prune.masks.masks import MaskPruner
from kondense.prune.method import Method
from kondense.prune.request import Request

FRACTIONS = (0.25, 0.5, 0.75, 0.9)


def scanned_layers(method: Method) -> list[str]:
    """Return the layers that ``method`` can prune one at a time; a group of channels goes by its first layer.

    Raises:
        ValueError: it cannot.
    """
    if isinstance(method, ChannelPruner):
        return list(method.original)
    if isinstance(method, MaskPruner):
        return list(method.layers)
    raise InputError(f"sensitivity must go with a method that scores channels or weights, not {type(method).__name__}.")


def scan(
    prepare: Callable[[nn.Module, Request], Method], module: nn.Module, request: Request, layers: Iterable[str]
) -> dict[str, Any]:
    """Return the validation accuracy with each layer pruned alone at several fractions.

    Args:
        prepare: the method's.
        module: the network; left as it is.
        request: how; its sparsity does not count here.
        layers: the names.

    Returns:
        ``of`` ("sparsity") and ``rows``: a ``layer`` and its ``points``, pairs of fraction and accuracy.
    """
    rows = []
    for layer in layers:
        points = []
        for fraction in FRACTIONS:
            config = dataclasses.replace(
                request.config, sparsity=0.0, trial_epochs=0, sparse_epochs=0, target="macs", max_validation_drop=1.0
            )
            asked = dataclasses.replace(request, config=config, fractions={layer: fraction})
            points.append([fraction, tried_accuracy(prepare, module, asked, "")])
        rows.append({"layer": layer, "points": points})
        LOG.info(f"sensitivity {layer} " + " ".join(f"{value}:{found:.4f}" for value, found in points))
    return {"of": "sparsity", "rows": rows}
