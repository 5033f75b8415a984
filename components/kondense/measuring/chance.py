"""Whether an accuracy could be that of a model that has learned nothing. Stdlib only."""

import math

Z = 1.959964  # of a two-sided interval of 95 %


def is_at_chance(accuracy: float, images: int, largest_share: float) -> bool:
    """Return whether an accuracy could be that of a model that always names the largest class.

    Args:
        accuracy: fraction of the images.
        images: their number.
        largest_share: fraction of the images in the largest class.

    Source: Wilson 1927; the lower end of the 95 % interval is compared.
    """
    square = Z**2 / images
    middle = (accuracy + square / 2) / (1 + square)
    half = Z * math.sqrt(accuracy * (1 - accuracy) / images + square / images / 4) / (1 + square)
    return middle - half <= largest_share


def chance_text(accuracy: float, images: int, largest_share: float, split: str = "validation") -> str:
    """Return one sentence about a teacher at chance; ``split``: whose largest class it is."""
    return (
        f"the teacher is at chance: {100 * accuracy:.1f} % of {images} validation images are right, and the largest"
        f" class has {100 * largest_share:.1f} % of the {split} images; no candidate can be judged against it: train it"
        " for longer, or look at the data."
    )
