"""The published weights of torchvision's and timm's networks, from the local cache or the hub."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kondense.errors import InputError
from kondense.networks.libraries import nearest
from kondense.networks.names import network_of, weights_of
from kondense.preprocessing import Preprocessing
from kondense.train.state_dicts import read_weights

DEFAULT = "DEFAULT"
HALF = (0.5, 0.5, 0.5)
# With weights torchvision lets these turn ImageNet's normalisation into this one, inside of the network; a network that
# is built by name does not, so that it takes images that are normalised so.
HALF_NORMALISED = ("googlenet", "inception_v3")


def published_weights(name: str, channels: int, image_size: int) -> tuple[dict[str, Tensor], Preprocessing]:
    """Return the state dict of ``torchvision:NAME@WEIGHTS`` or ``timm:NAME@TAG``, and what its images went through.

    Raises:
        InputError: there are no such weights (the nearest ones are listed), or they are neither in the cache nor to be
            had from the hub.
    """
    library, _, network = network_of(name).partition(":")
    if library == "torchvision":
        return _of_torchvision(network, weights_of(name), image_size)
    return _of_timm(network, weights_of(name), channels)


def _of_torchvision(network: str, weights: str, image_size: int) -> tuple[dict[str, Tensor], Preprocessing]:
    from torchvision import models  # takes seconds to import

    known = [entry.name for entry in models.get_model_weights(network)]  # without the alias DEFAULT
    if weights not in {*known, DEFAULT}:
        raise InputError(
            f"the weights of torchvision:{network} must be {nearest(weights, known)}, but got {weights!r}."
        )
    entry: Any = getattr(models.get_model_weights(network), weights)
    path = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            prefix = path.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(entry.url, str(path), prefix, progress=False)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"the weights of torchvision:{network}@{weights} must be in the cache or on the hub, but {path} is not"
                f" there and {entry.url} cannot be read ({error}); put the file there, or set TORCH_HOME."
            ) from None
    state = read_weights(str(path), path.read_bytes())
    transforms = entry.transforms()
    mean, std = (HALF, HALF) if network in HALF_NORMALISED else (transforms.mean, transforms.std)
    if network.startswith("vit_"):
        state = _resized(state, network, image_size)
    return state, Preprocessing(
        tuple(mean),
        tuple(std),
        crop=(transforms.crop_size[0],) * 2,
        resize=(transforms.resize_size[0],),
        interpolation=transforms.interpolation.value,
    )


def _resized(state: dict[str, Tensor], network: str, image_size: int) -> dict[str, Tensor]:
    from torchvision.models.vision_transformer import interpolate_embeddings

    return dict(interpolate_embeddings(image_size, int(network.rpartition("_")[2]), state))


def _of_timm(network: str, tag: str, channels: int) -> tuple[dict[str, Tensor], Preprocessing]:
    import timm

    name = network if tag == DEFAULT else f"{network}.{tag}"
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{network}.*")]
    if tag != DEFAULT and tag not in tags:
        raise InputError(f"the weights of timm:{network} must be {nearest(tag, tags)}, but got {tag!r}.")
    try:
        module: Any = timm.create_model(name, pretrained=True, in_chans=channels)
    except Exception as error:  # the hub's client raises errors of its own and of several libraries
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the weights of timm:{network}@{tag} must be in the cache or on the hub, but: {type(error).__name__}:"
            f" {first} (HF_HOME names the cache)."
        ) from None
    config = module.pretrained_cfg
    height, width = config["input_size"][1:]
    squash = config.get("crop_mode") == "squash"
    resize = (height, width) if squash else (math.floor(height / config["crop_pct"]),)
    mean, std = (_of_channels(config[name], channels) for name in ("mean", "std"))
    return module.state_dict(), Preprocessing(mean, std, (height, width), resize, config["interpolation"])


def _of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
