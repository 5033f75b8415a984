"""Distillation from logits: the student imitates the teacher's softened outputs. Source: Hinton et al. 2015."""

from torch import nn

from components.distill.config import DistillConfig
from components.training.distillation import distillation_loss
from components.training.run import Loss


def make_loss(student: nn.Module, teacher: nn.Module, config: DistillConfig) -> Loss:
    """Return the student's loss for the training loop; this method needs nothing of the student's inside."""
    return distillation_loss(
        teacher, temperature=config.temperature, alpha=config.alpha, label_smoothing=config.label_smoothing
    )
