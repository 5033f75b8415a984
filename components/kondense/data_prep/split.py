"""Cut a collection into training, validation and test images.

Shapes: N images of a part, M chosen ones.
"""

import numpy as np
from numpy.typing import NDArray

from kondense.data.collection import Arrays, Collection, Labelled
from kondense.data_prep.config import DataPrepConfig
from kondense.errors import InputError

VALIDATION_SHARE = 12  # one image in this many, where validation_size is 0


def split(collection: Collection, config: DataPrepConfig) -> dict[str, Arrays]:
    """Return the images of train, validation and test.

    The order of every split that is cut is that of ``numpy.random.default_rng(seed).permutation``: first the
    test images are cut where the source has none, then ``limit`` applies, then the validation images are cut.
    A test or validation split that the source comes with keeps its order, unless ``limit`` draws from it.

    Raises:
        ValueError: too few images for three splits that hold one each; the text gives rule and value.
    """
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(len(collection.train))
    if collection.test is None:
        count = max(1, round(len(order) * config.test_fraction))
        order, test = order[count:], collection.train.take(_limited(order[:count], config.limit))
    else:
        test = _drawn(collection.test, config.limit, rng)
    order = _limited(order, config.limit)
    if collection.validation is None:
        count = _validation_size(len(order), config)
        order, validation = order[count:], collection.train.take(order[:count])
    else:
        validation = _drawn(collection.validation, config.limit, rng)
    return {"train": collection.train.take(order), "validation": validation, "test": test}


def _drawn(part: Labelled, limit: int, rng: np.random.Generator) -> Arrays:
    order = rng.permutation(len(part))
    return part.take(order[:limit] if 0 < limit < len(part) else np.arange(len(part)))


def _limited(order_N: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    return order_N[:limit] if limit else order_N


def _validation_size(available: int, config: DataPrepConfig) -> int:
    if available < 2:
        raise InputError(f"train and validation must have at least 2 images together, but {available} are left.")
    size = config.validation_size or max(1, round(available / VALIDATION_SHARE))
    if size >= available:
        raise InputError(f"validation_size must be below the number of training images ({available}), but got {size}.")
    return size
