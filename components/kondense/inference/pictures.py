"""Image files as pixels for a model. NumPy and Pillow only.

Shapes: one image is uint8 [C, H, W].
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kondense.data.picture import Geometry, decode
from kondense.errors import InputError
from kondense.preprocessing import BILINEAR


def read_picture(
    path: Path, shape: tuple[int, int, int], *, resize: Sequence[int] = (), interpolation: str = BILINEAR
) -> NDArray[np.uint8]:
    """Return the image at ``path`` as uint8 of ``shape``, as data prep makes it for training.

    Args:
        path: a file that Pillow can read.
        shape: [C, H, W] of the model, C 1 or 3.
        resize: sizes before the crop, see ``kondense.preprocessing.Preprocessing``.
        interpolation: of the resizing.

    Raises:
        InputError: the file is missing or not an image, or the model does not have 1 or 3 channels.
    """
    channels, height, width = shape
    if channels not in (1, 3):
        raise InputError(f"the model must have 1 or 3 input channels, but has {channels}.")
    return decode(path, Geometry((height, width), channels, tuple(resize), interpolation))
