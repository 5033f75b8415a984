"""Auxiliary heads: parts of a network that only training needs, as GoogLeNet's and Inception's.

Shapes: B images, C channels, H height, W width, K classes.
"""

import copy

import torch
from torch import Tensor, nn

from kondense.artifacts.structure import replace
from kondense.logging import LOG
from kondense.networks.outputs import leaves
from kondense.training.outputs import TrainingOutputs, run_recorded

IMAGES = 4  # that the heads are found with


def drop_auxiliary(module: nn.Module, images_BCHW: Tensor, classes: int) -> list[str]:
    """Replace the auxiliary heads of a trained network by identities, in place, and return their names.

    A head is called in training mode, and the logits of evaluation mode have no gradient for its parameters. It stays
    if without it these logits were others, or the network could not be trained on.

    Args:
        module: a network that may return more than its logits in training mode.
        images_BCHW: a few images; the network is in evaluation mode and on the CPU.
        classes: their number, K.
    """
    if not hasattr(type(module), "_returns_logits"):
        return []  # it returns its logits alone
    output, trained = run_recorded(module, images_BCHW, training=True)
    if sum(1 for _ in leaves(output)) < len(("logits", "auxiliary logits")):
        return []
    logits_BK, _ = run_recorded(module, images_BCHW, training=False)
    unused = _without_gradient(module, images_BCHW)
    called = {name for name, _ in trained if unused.issuperset(_parameters(module, name) or {""})}
    heads = sorted(name for name in called if not any(name.startswith(f"{other}.") for other in called))
    rest = copy.deepcopy(module)
    rest.__dict__.pop("_output_path", None)  # as the network is when its artifact is read
    for name in heads:
        replace(rest, name, nn.Identity())
    if not heads or not _is_same(rest, images_BCHW, logits_BK, classes):
        return []
    for name in heads:
        replace(module, name, nn.Identity())
    LOG.info(f"auxiliary heads that only training needs are left out: {', '.join(heads)}")
    return heads


def _is_same(rest: nn.Module, images_BCHW: Tensor, logits_BK: Tensor, classes: int) -> bool:
    """Return whether a network without its heads gives the same logits, and its own among those of training mode."""
    try:
        found, _ = run_recorded(rest, images_BCHW, training=False)
        TrainingOutputs(rest, images_BCHW, classes).split(run_recorded(rest, images_BCHW, training=True)[0])
    except Exception as error:  # whatever the user's forward raises without a head
        LOG.info(f"the auxiliary heads stay, since the network cannot be trained on without them: {error}")
        return False
    return isinstance(found, Tensor) and torch.equal(found, logits_BK)


def _parameters(module: nn.Module, name: str) -> set[str]:
    """Return the names of the parameters of a part, the first one of those that are shared."""
    inner = {id(parameter) for parameter in module.get_submodule(name).parameters()}
    return {each for each, parameter in module.named_parameters() if id(parameter) in inner}


def _without_gradient(module: nn.Module, images_BCHW: Tensor) -> set[str]:
    """Return the names of the parameters that have no part in the logits of evaluation mode."""
    copied = copy.deepcopy(module).eval()
    named = {name: parameter for name, parameter in copied.named_parameters() if parameter.is_floating_point()}
    with torch.enable_grad():
        for parameter in named.values():
            parameter.requires_grad_(True)
        logits_BK = copied(images_BCHW)
        if not logits_BK.requires_grad:
            return set()
        gradients = torch.autograd.grad(logits_BK.sum(), list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is None}
