"""Distillation from logits alone: the student imitates the teacher's softened outputs, and no layer inside.

Source: Hinton et al. 2015; the loss itself is ``kondense.training.losses.soft_cross_entropy``.
"""

from kondense.distill.feature_loss import Hint, Request


def prepare(request: Request) -> Hint | None:
    """Return None: the logits, which are part of every method's loss, are all."""
    return None
