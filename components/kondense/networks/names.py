"""The names of networks and their forms; free of torch.

A name is built in, registered by another distribution under the entry point group ``kondense.networks``
(``mynet = "package.module:factory"``), or says where the network comes from: ``torchvision:NAME``, ``timm:NAME``,
``package.module:factory``.
"""

from collections.abc import Mapping

from kondense.errors import InputError
from kondense.methods import Methods

BUILT_IN: Mapping[str, str] = {
    "lenet300": "kondense.networks.lenet:lenet300",
    "lenet5": "kondense.networks.lenet:lenet5",
    "lenet_cifar": "kondense.networks.lenet:lenet_cifar",
    "mobilenet_small": "kondense.networks.mobilenet:mobilenet_small",
    "resnet20": "kondense.networks.resnet:resnet20",
    "resnet56": "kondense.networks.resnet:resnet56",
    "resnet8": "kondense.networks.resnet:resnet8",
}
REGISTERED = Methods(group="kondense.networks")
LIBRARIES = ("torchvision", "timm")


def check_form(name: str) -> None:
    """Raise InputError unless ``name`` is known or has the form of another network; imports nothing."""
    prefix, _, rest = name.partition(":")
    if not (name in BUILT_IN or (prefix and rest) or name in REGISTERED):
        known = ", ".join([*BUILT_IN, *REGISTERED, *(f"{library}:NAME" for library in LIBRARIES)])
        raise InputError(f"network must be one of {known} or package.module:factory, but got {name!r}.")
