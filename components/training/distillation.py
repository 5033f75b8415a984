"""The teacher's part in a loss: soft labels for a student, be it a smaller network or a pruned one.

Shapes: B images in a batch, C channels, H height, W width, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.artifacts.dataset import Dataset
from components.artifacts.model import Model
from components.training.run import Loss


def check_classes(role: str, model: Model, dataset: Dataset) -> None:
    """Raise ValueError unless the model tells apart as many classes as the dataset has."""
    classes = model.network.arguments.get("classes")
    if classes != len(dataset.classes):
        raise ValueError(f"the {role} must have the dataset's {len(dataset.classes)} classes, but got {classes}.")


def soft_cross_entropy(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """Return the distillation loss between two batches of logits, averaged over the batch.

    Args:
        student_BK: logits of the student.
        teacher_BK: logits of the teacher, same shape; no gradient flows into it.
        temperature: softens both; the loss is scaled by its square so gradients keep their size.

    Source: Hinton et al. 2015, section 2. Deviation: the Kullback-Leibler divergence instead of the
    cross-entropy; it differs by the teacher's entropy, so its gradient is the same and its minimum is 0.
    """
    return soft_divergence(student_BK, F.log_softmax(teacher_BK.detach().float() / temperature, dim=1), temperature)


def soft_divergence(student_BK: Tensor, teacher_log_BK: Tensor, temperature: float) -> Tensor:
    """Return ``soft_cross_entropy`` for a teacher that is given by the logarithm of its softened outputs.

    Args:
        student_BK: logits of the student.
        teacher_log_BK: logarithm of probabilities, same shape, softened by the same temperature.
        temperature: softens the student; the loss is scaled by its square.
    """
    student = F.log_softmax(student_BK.float() / temperature, dim=1)
    return F.kl_div(student, teacher_log_BK, reduction="batchmean", log_target=True) * temperature**2


def distillation_loss(teacher: nn.Module, *, temperature: float, alpha: float, label_smoothing: float = 0.0) -> Loss:
    """Return the loss ``(1 - alpha) * cross-entropy + alpha * soft cross-entropy`` for the training loop.

    Args:
        teacher: put in evaluation mode; follows the images to their device.
        temperature: of the soft part, above 0.
        alpha: weight of the soft part, [0, 1].
        label_smoothing: of the hard part, [0, 1).
    """
    teacher.eval().requires_grad_(False)

    def loss(logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        teacher.to(images_BCHW.device)
        with torch.no_grad():
            teacher_BK = teacher(images_BCHW)
        hard = F.cross_entropy(logits_BK, labels_B, label_smoothing=label_smoothing)
        return (1.0 - alpha) * hard + alpha * soft_cross_entropy(logits_BK, teacher_BK, temperature)

    return loss
