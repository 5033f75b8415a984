"""Change the size or the channels of images in memory.

Shapes: N images, C channels, H height, W width. All arithmetic is on integers, so the bytes are the same on every
machine.
"""

import numpy as np
from numpy.typing import NDArray

from kondense.data.picture import Geometry, fitted

LUMA = (19595, 38470, 7471)  # red, green, blue in 1/65536
CHUNK = 4096  # images converted at a time; bounds the memory of the wider integers


def finished(images_NCHW: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Return the images with the channels and the size of ``geometry``, the channels first, as pictures are decoded."""
    return resized(with_channels(images_NCHW, geometry.channels), geometry)


def resized(images_NCHW: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Return the images at the size of ``geometry``."""
    if not geometry.size or (images_NCHW.shape[2:] == geometry.size and not geometry.resize):
        return images_NCHW
    from PIL import Image

    count, channels = images_NCHW.shape[:2]
    output_NCHW = np.empty((count, channels, *geometry.size), np.uint8)
    for index in np.ndindex(count, channels):
        output_NCHW[index] = np.asarray(fitted(Image.fromarray(images_NCHW[index]), geometry))
    return output_NCHW


def with_channels(images_NCHW: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Return the images with ``channels`` (1 or 3; 0 changes nothing).

    Source: grey is ITU-R 601-2 luma in the fixed-point arithmetic of Pillow's conversion to mode L.
    """
    present = images_NCHW.shape[1]
    if channels in (0, present):
        return images_NCHW
    if present == 1:
        return np.repeat(images_NCHW, channels, axis=1)
    grey_NCHW = np.empty((len(images_NCHW), 1, *images_NCHW.shape[2:]), np.uint8)
    for start in range(0, len(images_NCHW), CHUNK):
        chunk = images_NCHW[start : start + CHUNK].astype(np.uint32)
        luma = sum(weight * chunk[:, channel] for channel, weight in enumerate(LUMA)) + 0x8000
        grey_NCHW[start : start + CHUNK, 0] = luma >> 16
    return grey_NCHW


def mean_and_std(images_NCHW: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of pixels scaled to [0, 1].

    The sums are integers and exact in any order. A constant channel has a deviation of 1, so that normalising it
    gives zeros.
    """
    sums_NC = [sums(images_NCHW[start : start + CHUNK]) for start in range(0, len(images_NCHW), CHUNK)]
    total, squares = (np.sum([part[kind].sum(0) for part in sums_NC], axis=0) for kind in (0, 1))
    return mean_and_std_of(total, squares, images_NCHW.size // images_NCHW.shape[1])


def sums(images_NCHW: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sums of the pixels and of their squares, per image and channel, [N, C] each."""
    squares_NC = np.square(images_NCHW, dtype=np.uint16).sum(axis=(2, 3), dtype=np.int64)
    return images_NCHW.sum(axis=(2, 3), dtype=np.int64), squares_NC


def mean_and_std_of(
    total_C: NDArray[np.int64], squares_C: NDArray[np.int64], count: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, for pixels in [0, 1], of ``count`` pixels with these sums."""
    means = [int(value) / count for value in total_C]
    variances = [
        (count * int(square) - int(value) ** 2) / count**2 for value, square in zip(total_C, squares_C, strict=True)
    ]
    deviations = [variance**0.5 or 255.0 for variance in variances]
    return tuple(mean / 255 for mean in means), tuple(deviation / 255 for deviation in deviations)
