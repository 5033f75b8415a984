"""The confusions of a classifier, by class.

Shapes: N images, K classes.
"""

import torch
from torch import Tensor

from kondense.errors import InputError


def confusion(predictions_N: Tensor, labels_N: Tensor, classes: int) -> Tensor:
    """Count images by true class (row) and predicted class (column).

    Args:
        predictions_N: predicted classes, integers in [0, classes).
        labels_N: true classes, same shape and range.
        classes: K.

    Returns:
        int64 [K, K]; its sum is N.

    Raises:
        InputError: different lengths, or a class out of range.
    """
    if predictions_N.shape != labels_N.shape:
        raise InputError(f"predictions must have the length of labels, {len(labels_N)}, but got {len(predictions_N)}.")
    for name, values_N in (("predictions", predictions_N), ("labels", labels_N)):
        if len(values_N) and (int(values_N.min()) < 0 or int(values_N.max()) >= classes):
            extremes = f"{int(values_N.min())} to {int(values_N.max())}"
            raise InputError(f"{name} must be in [0, {classes}), but got {extremes}.")
    pairs_N = labels_N.long() * classes + predictions_N.long()
    return torch.bincount(pairs_N, minlength=classes * classes).reshape(classes, classes)


def per_class_accuracy(confusion_KK: Tensor) -> list[float]:
    """Return the fraction of each true class that was predicted correctly; 0 for a class without images."""
    images_K = confusion_KK.sum(1)
    return (confusion_KK.diagonal().double() / images_K.clamp(min=1)).tolist()


def agreement(first_N: Tensor, second_N: Tensor) -> float:
    """Return the fraction of images with equal predictions of two models."""
    return float((first_N == second_N).double().mean())


def paired(before_N: Tensor, after_N: Tensor, labels_N: Tensor) -> dict[str, int]:
    """Return the number of images, and of those that only the first or only the second model gets right.

    Args:
        before_N: predicted classes of the first model, the teacher.
        after_N: those of the second.
        labels_N: true classes.
    """
    right, still = before_N == labels_N, after_N == labels_N
    return {"images": len(labels_N), "lost": int((right & ~still).sum()), "gained": int((~right & still).sum())}
