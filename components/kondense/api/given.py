"""What a program gives: models and data sets, and what people pass in their place."""

from typing import Any

from torch import nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.errors import InputError


def check_model(role: str, given: Any) -> None:
    """Raise InputError unless ``given``, an argument named ``role``, is a model."""
    if not isinstance(given, Model):
        way = ": wrap it, kd.Model(net)" if isinstance(given, nn.Module) else ""
        raise InputError(f"{role} must be a kd.Model, but got {_kind(given)}{way}.")


def check_data(given: Any) -> None:
    """Raise InputError unless ``given`` is a data set."""
    if not isinstance(given, Dataset):
        raise InputError(
            f"data must be a kd.Dataset, but got {_kind(given)}: kd.Dataset.from_arrays, from_loader or from_folder"
            " makes one."
        )


def _kind(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
