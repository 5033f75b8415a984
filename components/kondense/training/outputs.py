"""The logits and those of the auxiliary heads among what a network returns in training mode.

Shapes: B images in a batch, K classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.networks.outputs import auxiliary_of, candidates, leaves, logits_path, output_key


class TrainingOutputs:
    """Finds the logits of a network in training mode.

    Of several outputs that may be the logits, that one is meant which the same layer makes as the output of evaluation
    mode: a GoogLeNet returns its logits alone there, and beside those of auxiliary heads in training mode.

    Args:
        module: the network; it stays as it is.
        images_BCHW: a few images, on its device.
        classes: number of classes.

    Raises:
        InputError: the logits cannot be told from the others.
    """

    def __init__(self, module: nn.Module, images_BCHW: Tensor, classes: int) -> None:
        self.path = ""
        output, made = run_recorded(module, images_BCHW, training=True)
        if isinstance(output, Tensor):
            return
        found = dict(leaves(output))
        try:
            key = output_key(module)
            self.path = logits_path(output, key=key if key in found else "", classes=classes)
        except InputError:
            evaluated, others = run_recorded(module, images_BCHW, training=False)
            makers, names = ({id(tensor): name for name, tensor in each} for each in (made, others))
            last = names.get(id(evaluated), "")
            same = [path for path, each in candidates(found, classes).items() if makers.get(id(each)) == last]
            if not last or len(same) != 1:
                raise
            (self.path,) = same

    def split(self, output: Any) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, [B, K], and those of the auxiliary heads."""
        if isinstance(output, Tensor):
            return output, []
        logits_BK = dict(leaves(output))[self.path]
        return logits_BK, auxiliary_of(output, logits_BK)


def run_recorded(module: nn.Module, images_BCHW: Tensor, *, training: bool) -> tuple[Any, list[tuple[str, Tensor]]]:
    """Return a network's output and what its parts made: names and tensors in order; it stays as it is."""
    made: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_hook(
            lambda _, inputs, output, name=name: made.extend((name, x) for _, x in leaves(output))
        )
        for name, layer in module.named_modules()
        if name
    ]
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    was_training, devices = module.training, [images_BCHW.device] if images_BCHW.is_cuda else []
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            output = torch.func.functional_call(module.train(training), buffers, (images_BCHW,), tie_weights=False)
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return output, made
