"""Distillation from logits alone.

Source: Hinton et al. 2015; the loss itself is ``kondense.training.losses.soft_cross_entropy``.
"""

from kondense.distill.feature_loss import Context, FeatureLoss

METHOD = {
    "name": "logits",
    "kind": "logits",
    "summary": "matches the teacher's logits only, as all methods do",
    "function": "prepare",
}


def prepare(context: Context) -> FeatureLoss | None:
    """Return None: the logits are part of every method's loss."""
    return None
