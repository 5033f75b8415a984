"""Differences of accuracy between two models on the same images, with intervals. Stdlib only.

Two models mostly err on the same images, so only those images count of which one model is right and the other wrong;
accuracies that are compared as if their images were different have intervals several times as wide.
"""

import math

from kondense.artifacts.report import Paired, Spread

Z = 1.959964  # of a two-sided interval of 95 %
ADDED = 0.5  # to each of the four cells
CELLS = 4


def interval(paired: Paired) -> Spread:
    """Return the 95 % interval of the candidate's accuracy minus the teacher's, fractions.

    Args:
        paired: the images, and those that only one of the two models gets right.

    Source: Agresti and Min 2005, Simple improved confidence intervals for comparing matched proportions, section 2:
    Wald's interval after 0.5 is added to each cell of the table of both models; it keeps its level for few images.
    """
    images = paired["images"] + CELLS * ADDED
    lost, gained = paired["lost"] + ADDED, paired["gained"] + ADDED
    middle = (gained - lost) / images
    half = Z * math.sqrt(max(lost + gained - (gained - lost) ** 2 / images, 0.0)) / images
    return {"low": max(middle - half, -1.0), "high": min(middle + half, 1.0)}


def images_to_decide(drop: float) -> int:
    """Return the fewest images on which a model without a single new error is known to lose at most ``drop``."""
    images = max(1, math.floor(Z / drop) - CELLS) if drop else 0
    while drop and -interval({"images": images, "lost": 0, "gained": 0})["low"] > drop:
        images += 1
    return images
