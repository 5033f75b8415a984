"""How many images are computed at once where their number changes no result: a bound in bytes, not in images.

A network's first activations take a few times the memory of its input, so the bound is far below what a machine has.
"""

import math
from collections.abc import Sequence

MOST = 500  # images; more are no faster
BYTES = 2**24  # of float32 pixels: 27 colour images of 224 pixels, 500 of up to 53


def at_once(shape: Sequence[int], most: int = MOST) -> int:
    """Return how many images of this shape, [C, H, W], are computed at once: at least 1, at most ``most``."""
    return max(1, min(most, BYTES // (4 * math.prod(shape))))
