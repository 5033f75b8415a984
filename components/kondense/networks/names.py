"""The names of networks and their forms; free of torch.

A name is built in, registered by another distribution under the entry point group ``kondense.networks``
(``mynet = "package.module:factory"``), or says where the network comes from: ``torchvision:NAME``, ``timm:NAME``,
``package.module:factory``. Two things may follow it: ``@WEIGHTS``, the published weights of a network of torchvision or
timm, and ``#OUTPUT``, the key or the index of the logits in a network's output.
"""

from collections.abc import Mapping

from kondense.errors import InputError, meant
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


def network_of(name: str) -> str:
    """Return the name without weights and output."""
    return name.partition("#")[0].partition("@")[0]


def weights_of(name: str) -> str:
    """Return the published weights that a name asks for, such as ``IMAGENET1K_V2`` of ``torchvision:resnet18@...``."""
    return name.partition("#")[0].partition("@")[2]


def output_of(name: str) -> str:
    """Return the key of the logits in the network's output: ``logits`` of ``mine.net:make#logits``."""
    return name.partition("#")[2]


def without_weights(name: str) -> str:
    """Return the name that builds the network with random weights, as artifacts keep it."""
    network, mark, output = name.partition("#")
    return network.partition("@")[0] + mark + output


def check_form(name: str) -> None:
    """Raise InputError unless ``name`` is known or has the form of another network; imports nothing."""
    network = network_of(name)
    prefix, _, rest = network.partition(":")
    if weights_of(name) and prefix not in LIBRARIES:
        raise InputError(f"only networks of {' and '.join(LIBRARIES)} have published weights (@), but got {name!r}.")
    if rest and ("/" in prefix or prefix.endswith(".py")):
        dotted = prefix.removesuffix(".py").strip("./").replace("/", ".")
        raise InputError(
            f"network must be package.module:factory, importable from here, but got a file: {dotted}:{rest} instead of"
            f" {name}."
        )
    if not (network in BUILT_IN or (prefix and rest) or network in REGISTERED):
        known = ", ".join([*BUILT_IN, *REGISTERED, *(f"{library}:NAME" for library in LIBRARIES)])
        question = meant(network, [*BUILT_IN, *REGISTERED])
        if network.isidentifier():
            libraries = " or ".join(f"{library}:{name}" for library in LIBRARIES)
            question = f"{question[:-2]}, or {libraries}?)" if question else f" ({libraries}?)"
        raise InputError(f"network must be one of {known} or package.module:factory, but got {name!r}{question}.")
