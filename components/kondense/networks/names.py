"""The names of the built-in networks and the forms of the others; stdlib only, for what must not import torch."""

from kondense.errors import InputError

BUILT_IN = ("lenet300", "lenet5", "lenet_cifar", "mobilenet_small", "resnet20", "resnet56", "resnet8")


def check_form(name: str) -> None:
    """Raise ValueError unless ``name`` is built in or has the form of another network; imports nothing."""
    prefix, _, rest = name.partition(":")
    if name not in BUILT_IN and not (prefix and rest):
        raise InputError(
            f"network must be one of {', '.join(BUILT_IN)}, or torchvision:<name>, or package.module:factory,"
            f" but got {name!r}."
        )
