"""The teacher's part in a loss: soft labels for a student, be it a smaller network or a pruned one.

Shapes: B images in a batch, C channels, H height, W width, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.artifacts.model import Model
from kondense.data.dataset import Dataset
from kondense.errors import InputError
from kondense.measuring.accuracy import predict
from kondense.training.objective import Objective
from kondense.training.trainer import Loss

MEMORY_BYTES = 512 * 2**20  # that a teacher's logits may take


def check_classes(role: str, model: Model, dataset: Dataset) -> None:
    """Raise ValueError unless the model tells apart as many classes as the dataset has."""
    classes = model.network.arguments.get("classes")
    if classes != len(dataset.classes):
        raise InputError(f"the {role} must have the dataset's {len(dataset.classes)} classes, but got {classes}.")


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


def distillation_loss(
    teacher: nn.Module,
    *,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
    unchanged: Dataset | None = None,
) -> Loss:
    """Return the loss ``(1 - alpha) * cross-entropy + alpha * soft cross-entropy`` for the training loop.

    Args:
        teacher: put in evaluation mode; follows the images to their device.
        temperature: of the soft part, above 0.
        alpha: weight of the soft part, [0, 1].
        label_smoothing: of the hard part, [0, 1).
        unchanged: the dataset that is trained on, where its images are not augmented. Then the teacher is asked about
            each once, before the first step, unless its logits would take more than ``MEMORY_BYTES``.
    """
    teacher.eval().requires_grad_(False)
    if unchanged is not None and 4 * len(unchanged.train) * len(unchanged.classes) > MEMORY_BYTES:
        unchanged = None
    return _Distillation(teacher, temperature, alpha, label_smoothing, unchanged)


class _Distillation(Objective):
    """The loss of ``distillation_loss``; the teacher is no part of its state."""

    def __init__(
        self, teacher: nn.Module, temperature: float, alpha: float, label_smoothing: float, unchanged: Dataset | None
    ) -> None:
        super().__init__()
        self.temperature, self.alpha, self.label_smoothing = temperature, alpha, label_smoothing
        self._teachers = (teacher,)  # a tuple, which hides it from state_dict
        self._unchanged = unchanged
        self._known_NK: Tensor | None = None
        self._index_B: Tensor | None = None  # of the next batch; None where it is not known to be of the dataset

    def begin(self, index_B: Tensor, progress: float) -> None:
        """Prepare for one step (see ``Objective.begin``)."""
        self._index_B = index_B if self._unchanged is not None else None

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        """Return the loss."""
        hard = F.cross_entropy(logits_BK, labels_B, label_smoothing=self.label_smoothing)
        soft = soft_cross_entropy(logits_BK, self._teacher_logits(images_BCHW), self.temperature)
        return (1.0 - self.alpha) * hard + self.alpha * soft

    def _teacher_logits(self, images_BCHW: Tensor) -> Tensor:
        index_B, self._index_B = self._index_B, None
        teacher = self._teachers[0].to(images_BCHW.device)
        if index_B is None or self._unchanged is None:
            with torch.no_grad():
                answered: Tensor = teacher(images_BCHW)
            return answered
        if self._known_NK is None:
            self._known_NK = predict(teacher, self._unchanged.train, self._unchanged, device=images_BCHW.device)
        return self._known_NK[index_B].to(images_BCHW.device, non_blocking=True)
