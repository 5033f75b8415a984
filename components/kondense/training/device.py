"""The device, the arithmetic and the memory format of training."""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from kondense.errors import InputError
from kondense.logging import LOG
from kondense.measuring.memory_format import IMAGES, close
from kondense.networks.outputs import leaves

# The reason why networks do not train in channels_last, "" if they do, by the classes of their modules.
_tried: contextvars.ContextVar[dict[tuple[type, ...], str] | None] = contextvars.ContextVar("tried", default=None)


def choose_device(name: str) -> torch.device:
    """Return the device; ``auto``: a GPU if there is one.

    Raises:
        InputError: ``cuda`` is requested and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device must be available, but got cuda and torch finds no GPU; use cpu or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def move(module: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a network and return it; ``Module.to`` looks at every tensor of one that is there already."""
    weight = next(module.parameters(), None)
    return module if weight is not None and weight.device == torch.device(device) else module.to(device)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic; ``auto``: bfloat16 on GPUs that support it, else float32.

    Raises:
        InputError: float16 on the CPU, where it underflows and is slow.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name == "float16" and device.type == "cpu":
        raise InputError("precision must be float32 or bfloat16 on a CPU, but got float16.")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def choose_memory_format(module: nn.Module, images_BCHW: Tensor | None = None) -> torch.memory_format:
    """Return channels_last, which is faster for convolutions, unless the network does not work in it.

    Args:
        module: the network, which stays as it is.
        images_BCHW: two images, on the device of ``module``, to try it with: a network that flattens by ``view`` fails
            in channels_last. None: it is not tried.

    torch 2.14.1 on CPU corrupts the heap in the backward of a strided 1x1 convolution with fewer than 8
    input channels in channels_last; channel pruning makes such layers.

    Raises:
        InputError: a step of training fails in any memory format.
    """
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    hazard = any(
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.in_channels // layer.groups < 8
        for layer in convolutions
    )
    wanted = torch.channels_last if convolutions and not hazard else torch.contiguous_format
    if images_BCHW is None:
        return wanted
    kinds, tried = tuple(map(type, module.modules())), _tried.get()
    if tried is not None and kinds in tried:
        return torch.contiguous_format if tried[kinds] else wanted
    try:
        _step(module, images_BCHW, torch.contiguous_format, training=True)
    except Exception as error:  # the network's own code may raise anything
        size = "x".join(map(str, images_BCHW.shape[1:]))
        raise InputError(f"the network must train on images of {size}, but: {_first_line(error)}") from error
    reason = _difference(module, images_BCHW) if wanted is torch.channels_last else ""
    if tried is not None and wanted is torch.channels_last:
        tried[kinds] = reason
    if reason:
        LOG.info(f"the network is trained in the contiguous memory format: in channels_last {reason}")
        return torch.contiguous_format
    return wanted


@contextlib.contextmanager
def formats_tried_once() -> Iterator[None]:
    """Try one of the networks in the block that consist of modules of the same classes, for all of them.

    Such are one network and what is left of it after pruning, whose code is the same.
    """
    token = _tried.set({})
    try:
        yield
    finally:
        _tried.reset(token)


def _difference(module: nn.Module, images_BCHW: Tensor) -> str:
    """Return in words how a network fails in channels_last, or an empty string."""
    try:
        _step(module, images_BCHW, torch.channels_last, training=True)
        found = _step(module, images_BCHW, torch.channels_last, training=False)
    except Exception as error:  # the network's own code may raise anything
        return _first_line(error)
    expected = _step(module, images_BCHW, torch.contiguous_format, training=False)
    return "" if all(map(close, found, expected)) else "its outputs or gradients are others"


def _step(
    module: nn.Module, images_BCHW: Tensor, memory_format: torch.memory_format, *, training: bool
) -> tuple[Tensor, Tensor]:
    """Return outputs and gradients, flat, of a step on a copy of the network's tensors in a memory format."""

    def placed(tensor: Tensor) -> Tensor:
        if tensor.ndim != IMAGES:
            return tensor.detach().clone()
        # Not `contiguous`, which leaves the strides of weights with one input channel as they are.
        return torch.empty_like(tensor, memory_format=memory_format).copy_(tensor.detach())

    weights = {name: placed(weight).requires_grad_(weight.requires_grad) for name, weight in module.named_parameters()}
    buffers = {name: placed(buffer) for name, buffer in module.named_buffers()}
    was_training = module.training
    devices = [images_BCHW.device] if images_BCHW.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        module.train(training)
        try:
            images = images_BCHW.contiguous(memory_format=memory_format)
            named = {f"module.{name}": tensor for name, tensor in {**weights, **buffers}.items()}
            # Untied: torch leaves a plain tensor in a module that stands under two names.
            return torch.func.functional_call(_Step(module), named, (images, list(weights.values())), tie_weights=False)
        finally:
            module.train(was_training)


class _Step(nn.Module):
    """A forward and a backward pass; the backward of a network that recomputes activations reads its weights again."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, images_BCHW: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return outputs and gradients, flat."""
        outputs = [tensor.float() for _, tensor in leaves(self.module(images_BCHW)) if tensor.is_floating_point()]
        trained = [weight for weight in weights if weight.requires_grad]
        total = sum(((tensor * tensor).mean() for tensor in outputs), torch.zeros((), device=images_BCHW.device))
        gradients = torch.autograd.grad(total, trained, allow_unused=True) if total.requires_grad else ()
        flat = [gradient.flatten() for gradient in gradients if gradient is not None]
        return torch.cat([tensor.flatten() for tensor in outputs]).detach(), torch.cat(flat) if flat else total.detach()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def place(images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and labels on the device when they fit in half of its free memory, else on the CPU."""
    if device.type == "cuda" and images.numel() > torch.cuda.mem_get_info(device)[0] // 2:
        return images, labels
    return images.to(device), labels.to(device)
