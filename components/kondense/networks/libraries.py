"""Classification networks of torchvision and timm, with random weights."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from kondense.errors import InputError


def torchvision_factory(name: str) -> Callable[..., nn.Module]:
    """Return the factory of ``torchvision:name``.

    Raises:
        InputError: torchvision has no such classification network.
    """
    from torchvision import models  # takes seconds to import

    names = models.list_models(module=models)  # excludes detection, segmentation and video
    if name not in names:
        raise InputError(f"torchvision's network must be {nearest(name, names)}, but got {name!r}.")
    builder = models.get_model_builder(name)

    def make(
        classes: int,
        channels: int,
        image_size: int | Sequence[int] = 224,
        width: float = 1.0,
        aux_logits: bool | None = None,
    ) -> nn.Module:
        accepted = inspect.signature(builder).parameters
        arguments: dict[str, Any] = {} if aux_logits is None else {"aux_logits": aux_logits}
        if width != 1.0 and name.startswith("mobilenet"):
            arguments["width_mult"] = width
        elif width != 1.0:
            raise InputError(f"torchvision:{name} has no width; width must be 1.0, but got {width}.")
        if "weights" in accepted:
            arguments["weights"] = None
        if name.startswith("vit_"):
            if not isinstance(image_size, int):
                raise InputError(f"torchvision:{name} needs square images, but got {'x'.join(map(str, image_size))}.")
            arguments["image_size"] = image_size  # the length of its position embedding
        module = builder(num_classes=classes, **arguments)
        if channels != 3:
            _replace_stem(module, channels)
        return module

    return make


def timm_factory(name: str) -> Callable[..., nn.Module]:
    """Return the factory of ``timm:name``.

    Raises:
        InputError: timm is not installed or has no such network.
    """
    try:
        import timm  # an optional dependency
    except ImportError as error:
        raise InputError(f"network 'timm:{name}' needs timm: pip install timm ({error}).") from None
    if not timm.is_model(name) or ":" in name:  # hf-hub:... would be a download
        names = timm.list_models()
        raise InputError(f"timm's network must be {nearest(name, names)}, but got {name!r}.")

    def make(classes: int, channels: int, image_size: int | Sequence[int] = 224, width: float = 1.0) -> nn.Module:
        if width != 1.0:
            raise InputError(f"timm:{name} has no width; width must be 1.0, but got {width}.")
        fixed = timm.models.get_pretrained_cfg(name)
        arguments: dict[str, Any] = {"img_size": image_size} if fixed is not None and fixed.fixed_input_size else {}
        module: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=classes, in_chans=channels, **arguments
        )
        return module

    return make


def nearest(name: str, names: Sequence[str]) -> str:
    """Return the three names that are most like ``name``, in words, and how many there are."""
    like = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
    return f"one of {len(names)}, such as {', '.join(like)}"


def _replace_stem(module: nn.Module, channels: int) -> None:
    """Replace the first convolution over 3 channels by one over ``channels``, in place."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d) and child.in_channels == 3:
            parent, _, leaf = name.rpartition(".")
            settings: dict[str, Any] = {name: getattr(child, name) for name in ("kernel_size", "stride", "padding")}
            stem = nn.Conv2d(channels, child.out_channels, bias=child.bias is not None, **settings)
            setattr(module.get_submodule(parent), leaf, stem)
            return
    raise InputError(f"the network has no convolution over 3 channels to adapt to images of {channels}.")
