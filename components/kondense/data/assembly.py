"""From a collection to the fields of a Dataset: split, read, examined, measured."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kondense.config import check_choice
from kondense.data.collection import Collection, Files
from kondense.data.dataset_files import Split
from kondense.data.examination import DUPLICATES, TELL, check_classes, check_memory, check_readable, without_copies
from kondense.data.picture import Geometry
from kondense.data.pixels import mean_and_std
from kondense.data.split import split_collection, take
from kondense.logging import LOG
from kondense.preprocessing import per_channel

AS_THEY_ARE = Geometry()
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std
MEASURED: Statistics = ((), ())


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is done with the images of a collection.

    Attributes:
        geometry: their form.
        normalization: mean and std, per channel or for all; () and () measure those of the training images.
        max_bad: number of unreadable pictures to leave out.
        duplicates: what happens to images in two splits: tell, drop or error.
        strict: whether a class without training images is an error, or only logged.

    Raises:
        InputError: an unknown word for ``duplicates``.
    """

    geometry: Geometry = AS_THEY_ARE
    normalization: Statistics = MEASURED
    max_bad: int = 0
    duplicates: str = TELL
    strict: bool = False

    def __post_init__(self) -> None:
        check_choice("duplicates", self.duplicates, DUPLICATES)


def assembled(collection: Collection, rules: Rules, *, name: str, seed: int, **cut: Any) -> dict[str, Any]:
    """Return the splits and the facts about them, by the names of Dataset's fields.

    Args:
        collection: the images.
        rules: what is done with them.
        name: of the data set, for messages.
        seed: of the split.
        cut: ``validation_size``, ``test_fraction`` and ``limit``, see ``kondense.data.split``.

    Raises:
        InputError: too few images, unreadable ones, or images that the rules refuse.
    """
    choices = split_collection(collection, seed=seed, **cut)
    if isinstance(collection.train.images, Files):
        check_memory(choices, collection.train.images.bytes_per_image())
    taken = {part: take(choice, rules.geometry) for part, choice in choices.items()}
    skipped = {"unreadable": check_readable(taken, rules.max_bad)}
    kept = without_copies(taken, rules.duplicates)
    skipped["duplicate"] = sum(map(len, taken.values())) - sum(map(len, kept.values()))
    check_classes(collection.classes, kept, limited=bool(cut.get("limit")), strict=rules.strict)
    splits = {part: Split(torch.from_numpy(one.images), torch.from_numpy(one.labels)) for part, one in kept.items()}
    return {**fields_of(collection, rules, name, mean_and_std(kept["train"].images), skipped), **splits}


def decoded_bytes(collection: Collection, geometry: Geometry, limit: int = 0) -> int:
    """Return the size of the decoded images of ``collection``, of which ``limit`` may leave some out."""
    parts = [part for part in (collection.train, collection.validation, collection.test) if part]
    first = collection.train.images
    if isinstance(first, Files):
        each = first.bytes_per_image()
    else:
        channels, *size = first[np.arange(1)].shape[1:]
        each = (geometry.channels or channels) * math.prod(geometry.size or size)
    return each * sum(min(len(part), limit or len(part)) for part in parts)


def fields_of(
    collection: Collection, rules: Rules, name: str, measured: Statistics, skipped: Mapping[str, int]
) -> dict[str, Any]:
    """Return the facts about a data set by the names of Dataset's fields.

    Args:
        collection: the images.
        rules: what was done with them.
        name: of the data set, for messages.
        measured: mean and std of the training images.
        skipped: numbers of images left out, by reason.
    """
    if 1.0 in measured[1] and len(set(measured[1])) > 1:
        LOG.warning(f"channel {measured[1].index(1.0)} of {name} is constant; it is not scaled")
    mean, std = per_channel(rules.normalization, len(measured[0])) if rules.normalization[0] else measured
    return {
        "classes": collection.classes,
        "mean": mean,
        "std": std,
        "resize": rules.geometry.resize,
        "interpolation": rules.geometry.interpolation,
        "skipped": {reason: count for reason, count in skipped.items() if count},
    }
