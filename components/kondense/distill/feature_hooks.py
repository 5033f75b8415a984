"""The layers of a network whose outputs can be recorded by hooks.

Shapes: N images, C channels, H height, W width, F features.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module that runs once per image.

    Attributes:
        name: of the module.
        shape: of its output for one image: (C, H, W), or (F,).
        depth: position in the order of execution, as a fraction of all such layers, (0, 1].
    """

    name: str
    shape: tuple[int, ...]
    depth: float

    @property
    def is_map(self) -> bool:
        """Whether the output is a map of several pixels."""
        return len(self.shape) == 3 and self.shape[1] * self.shape[2] > 1


def list_layers(module: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Layer]:
    """Return the layers with outputs [N, C, H, W] or [N, F], by name, in the order in which they finish.

    Not included are modules that run several times, finish before the first one with parameters, or have the same
    output as the network.
    """
    outputs: list[tuple[str, Tensor | None]] = []
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, name=name: outputs.append((name, output)))
        for name, layer in module.named_modules()
        if name
    ]
    was_training = module.training
    try:
        with torch.no_grad():
            logits = module.eval()(torch.zeros(2, *image_shape))
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    runs = [name for name, _ in outputs]
    with_parameters = [
        index for index, name in enumerate(runs) if any(True for _ in module.get_submodule(name).parameters())
    ]
    kept = [
        (name, output)
        for name, output in outputs[with_parameters[0] if with_parameters else 0 :]
        if isinstance(output, Tensor) and output is not logits and output.ndim in (2, 4) and runs.count(name) == 1
    ]
    return {
        name: Layer(name, tuple(output.shape[1:]), index / len(kept)) for index, (name, output) in enumerate(kept, 1)
    }


@contextlib.contextmanager
def record_outputs(module: nn.Module, names: Sequence[str], *, training: bool) -> Iterator[dict[str, Tensor]]:
    """Yield a mapping with the latest output of each named layer, [N, ...].

    Args:
        module: the network.
        names: names of its layers.
        training: record only passes in this mode, so that measuring a student meanwhile costs nothing.
    """
    outputs: dict[str, Tensor] = {}

    def keep(layer: nn.Module, output: Tensor, name: str) -> None:
        if layer.training == training:
            outputs[name] = output

    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda layer, inputs, output, name=name: keep(layer, output, name)
        )
        for name in names
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
