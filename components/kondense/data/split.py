"""Cut a collection into training, validation and test images.

Shapes: N images of a part, M chosen ones.
"""

import numpy as np
from numpy.typing import NDArray

from kondense.data.collection import Arrays, Collection, Labelled
from kondense.errors import InputError

VALIDATION_SHARE = 12  # one image in this many, if validation_size is 0


def split_collection(
    collection: Collection, *, seed: int = 0, validation_size: int = 0, test_fraction: float = 0.2, limit: int = 0
) -> dict[str, Arrays]:
    """Return the images of train, validation and test.

    The order of every split that is cut is that of ``numpy.random.default_rng(seed).permutation``: first the
    test images are cut if the source has none, then ``limit`` applies, then the validation images are cut.
    A test or validation split of the source keeps its order, unless ``limit`` draws from it.

    Args:
        collection: the images.
        seed: of the permutations.
        validation_size: training images kept for validation; 0 takes one in twelve.
        test_fraction: fraction of the images kept for the test if the source has no test images, (0, 1).
        limit: maximum number of training images and of test images; 0 takes all.

    Raises:
        InputError: too few images for three splits.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(collection.train))
    if collection.test is None:
        count = max(1, round(len(order) * test_fraction))
        order, test = order[count:], collection.train.take(_limited(order[:count], limit))
    else:
        test = _drawn(collection.test, limit, rng)
    order = _limited(order, limit)
    if collection.validation is None:
        count = _validation_size(len(order), validation_size)
        order, validation = order[count:], collection.train.take(order[:count])
    else:
        validation = _drawn(collection.validation, limit, rng)
    return {"train": collection.train.take(order), "validation": validation, "test": test}


def _drawn(part: Labelled, limit: int, rng: np.random.Generator) -> Arrays:
    order = rng.permutation(len(part))
    return part.take(order[:limit] if 0 < limit < len(part) else np.arange(len(part)))


def _limited(order_N: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    return order_N[:limit] if limit else order_N


def _validation_size(available: int, validation_size: int) -> int:
    if available < 2:
        raise InputError(f"train and validation must have at least 2 images together, but {available} are left.")
    size = validation_size or max(1, round(available / VALIDATION_SHARE))
    if size >= available:
        raise InputError(f"validation_size must be below the number of training images ({available}), but got {size}.")
    return size
