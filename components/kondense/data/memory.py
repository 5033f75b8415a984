"""Images and labels of a program: arrays, tensors, DataLoaders.

Shapes: N images, B of a batch, C channels, H height, W width.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kondense.data.collection import Collection, Labelled
from kondense.errors import InputError
from kondense.logging import LOG

CHANNELS = (1, 3)


def collection_of(parts: dict[str, Labelled | None], classes: Sequence[str] | None, origin: str) -> Collection:
    """Return the parts as a collection; without ``classes``, they are named by their numbers.

    Raises:
        InputError: images of unlike shapes, fewer than two classes, a label without a class.
    """
    present = {name: part for name, part in parts.items() if part is not None}
    shapes = {name: part.images[np.arange(1)].shape[1:] for name, part in present.items()}
    for name, shape in shapes.items():
        if shape != shapes["train"]:
            raise InputError(f"{name} images must be {list(shapes['train'])} as train's, but got {list(shape)}.")
    if classes is None:
        used = np.unique(np.concatenate([part.labels for part in present.values()]))
        classes = [str(label) for label in range(1 + int(used.max()))]
        if len(used) < len(classes):
            absent = sorted(set(range(len(classes))).difference(used.tolist()))
            LOG.warning(f"the labels go up to {used.max()}, but no image has label {', '.join(map(str, absent[:5]))}")
    if len(classes) < 2:
        raise InputError(f"there must be at least 2 classes, but got {len(classes)}.")
    twice = [name for name, count in Counter(map(str, classes)).items() if count > 1]
    if twice:
        raise InputError(f"classes must have different names, but {twice[0]!r} stands twice.")
    return Collection(classes=tuple(map(str, classes)), origin=origin, **present)


def from_pair(name: str, pair: Any) -> Labelled | None:
    """Return (images, labels) of one split as uint8 [N, C, H, W] and int64 [N]; None if there are none.

    Raises:
        InputError: no such pair, or an array that ``images_of`` or ``labels_of`` rejects.
    """
    if pair is None:
        return None
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        size = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
        raise InputError(f"{name} must be a pair (images, labels), but got a {type(pair).__name__}{size}.")
    images_NCHW, labels_N = images_of(name, pair[0]), labels_of(name, pair[1])
    if len(images_NCHW) != len(labels_N):
        raise InputError(
            f"{name} must have one label per image, but got {len(images_NCHW)} images and {len(labels_N)} labels."
        )
    return Labelled(images_NCHW, labels_N)


def batches_of(name: str, loader: Iterable[Any]) -> Iterator[Labelled]:
    """Yield images and labels of each batch of a DataLoader.

    Raises:
        InputError: batches that are not (images, labels) or have unlike shapes.
    """
    first: list[int] = []
    for number, batch in enumerate(loader):
        place = f"{name} batch {number}"
        if isinstance(batch, tuple | list) and len(batch) == 2 and not np.ndim(batch[1]):
            raise InputError(
                f"{place} must be images [N, C, H, W] and labels [N], but has one label: wrap a data set as"
                " torch.utils.data.DataLoader(dataset, batch_size=256)."
            )
        part = from_pair(place, batch)
        if part is None:
            raise InputError(f"{place} must be a pair (images, labels), but got None.")
        shape = [*part.images[np.arange(1)].shape[1:]]
        first = first or shape
        if shape != first:
            raise InputError(f"{place} must have images of {first} as batch 0, but got {shape}.")
        yield part


def images_of(name: str, images: ArrayLike) -> NDArray[np.uint8]:
    """Return images as uint8 [N, C, H, W].

    Args:
        name: of the split, for errors.
        images: [N, C, H, W], [N, H, W, C] or [N, H, W] with 1 or 3 channels; uint8, or float in [0, 1], which is
            rounded to the nearest of 256 levels.

    Raises:
        InputError: another shape or type, or a value outside [0, 1].
    """
    array = _array(images)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in CHANNELS and array.shape[3] in CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in CHANNELS or not array.size:
        raise InputError(
            f"{name} images must be [N, C, H, W], [N, H, W, C] or [N, H, W] with 1 or 3 channels, but got"
            f" {list(array.shape)}."
        )
    if array.dtype.kind == "f":
        return _levels(name, array)
    if array.dtype != np.uint8:
        raise InputError(f"{name} images must be uint8, or float in [0, 1], but got {array.dtype}.")
    return np.ascontiguousarray(array)


def labels_of(name: str, labels: ArrayLike) -> NDArray[np.int64]:
    """Return labels as int64 [N].

    Raises:
        InputError: another shape, or no whole numbers from 0 on.
    """
    array = _array(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{name} labels must be integers [N], but got {array.dtype} {list(array.shape)}.")
    if array.size and array.min() < 0:
        raise InputError(f"{name} labels must be 0 or greater, but got {array.min()}.")
    return array.astype(np.int64)


def _levels(name: str, array_NCHW: NDArray[Any]) -> NDArray[np.uint8]:
    for value in (array_NCHW.min(), array_NCHW.max()):
        if not 0.0 <= value <= 1.0:  # NaN too
            raise InputError(
                f"{name} images must be uint8, or float in [0, 1], but got {value:.6g}: undo their normalisation, or"
                " pass uint8."
            )
    levels_NCHW: NDArray[np.uint8] = np.rint(np.ascontiguousarray(array_NCHW) * 255).astype(np.uint8)
    return levels_NCHW


def _array(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values  # NumPy has no bfloat16
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of unlike lengths
        raise InputError(f"images and labels must be arrays, but: {error}.") from error
