"""The 1,797 handwritten digits of 8x8 pixels that ship with scikit-learn, by default enlarged to 16x16."""

import numpy as np

from kondense.data.collection import Collection, Labelled, Source

LEVELS = 16  # scikit-learn's pixels are 0 to 16
IMAGE_SIZE = 16  # the minimum of the LeNets


def collect() -> Collection:
    """Return the digits, [N, 1, 8, 8], with pixels scaled to 0 to 255; the test images are cut from them."""
    from sklearn.datasets import load_digits  # takes a second to import

    digits = load_digits()
    images_NHW = np.rint(digits.images * (255 / LEVELS)).astype(np.uint8)
    return Collection(
        classes=tuple(str(name) for name in digits.target_names),
        train=Labelled(images_NHW[:, None], digits.target.astype(np.int64)),
        origin="scikit-learn",
    )


SOURCE = Source(lambda *_: collect(), lambda name: False, IMAGE_SIZE)
