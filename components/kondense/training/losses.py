"""Losses of training: cross-entropy with the labels, and distillation from a teacher's logits.

Shapes: B images in a batch, C channels, H height, W width, K classes.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kondense.data.dataset import Dataset
from kondense.measuring.accuracy import predict
from kondense.measuring.memory_format import taken_format
from kondense.processes import current
from kondense.training.settings import TrainingConfig

MEMORY_BYTES = 512 * 2**20  # the most that a teacher's cached logits may take

# Maps (logits [B, K], labels [B], normalised images [B, C, H, W]) to a scalar.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Objective(nn.Module):
    """A loss with state: the training loop announces every step to it, and it may have parameters of its own.

    The optimizer trains its parameters together with those of the network. They, the buffers and the momenta are part
    of the checkpoints, but not of the network, which is saved without them.
    """

    def begin(self, index_B: Tensor, progress: float) -> None:
        """Prepare for one step.

        Args:
            index_B: indices of the batch's images in the training split, on the CPU.
            progress: elapsed fraction of the schedule's horizon, [0, 1).
        """

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        raise NotImplementedError


def cross_entropy(label_smoothing: float, weights_K: Tensor | None = None) -> Loss:
    """Return the loss of plain training: cross-entropy with the labels.

    Args:
        label_smoothing: probability mass taken from the true label, [0, 1).
        weights_K: weights of the classes; None: 1 each.
    """

    def loss(logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        weights = None if weights_K is None else weights_K.to(logits_BK.device, logits_BK.dtype)
        mean = F.cross_entropy(logits_BK, labels_B, weights, label_smoothing=label_smoothing)
        if weights is None or labels_B.is_floating_point() or not current().several:
            return mean
        return mean * _weight_of_part(weights[labels_B])

    return loss


def _weight_of_part(weights_B: Tensor) -> float:
    """Return the mean weight of this process's images relative to that of the whole batch, by which torch divides."""
    own, images = float(weights_B.sum()), float(len(weights_B))
    total, batch = current().sums([own, images])
    return (own / images) / (total / batch)


def label_loss(config: TrainingConfig, dataset: Dataset) -> Loss:
    """Return the loss that a Config asks for: cross-entropy, with its label smoothing and class weights."""
    if config.class_weights == "none":
        return cross_entropy(config.label_smoothing)
    return cross_entropy(config.label_smoothing, balanced(dataset.train.labels, len(dataset.classes)))


def balanced(labels_N: Tensor, classes: int) -> Tensor:
    """Return weights of the classes, [K], in inverse proportion to their images; their mean over the images is 1."""
    counts_K = torch.bincount(labels_N.cpu(), minlength=classes).clamp(min=1)
    return len(labels_N) / (classes * counts_K.float())


def teacher_loss(
    config: TrainingConfig, teacher: nn.Module, dataset: Dataset, *, temperature: float, alpha: float
) -> Loss:
    """Return the loss of training on ``dataset`` with a teacher; plain cross-entropy if ``alpha`` is 0."""
    if not alpha:
        return label_loss(config, dataset)
    return SoftLabelLoss(
        teacher,
        temperature=temperature,
        alpha=alpha,
        hard=label_loss(config, dataset),
        unchanged=dataset if not config.augmentations else None,
    )


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


class SoftLabelLoss(Objective):
    """The loss ``(1 - alpha) * cross-entropy + alpha * soft cross-entropy``.

    It works on a copy of the teacher, which is not part of its state.

    Args:
        teacher: the network that gives the soft labels; never altered.
        temperature: of the soft part, above 0.
        alpha: weight of the soft part, [0, 1].
        label_smoothing: of the hard part, [0, 1).
        hard: the loss with the labels; cross-entropy by default.
        unchanged: the dataset to train on if its images are not augmented. The teacher's logits are then computed
            once, before the first step, unless they would take more than ``memory_bytes``.
        memory_bytes: the most that these logits may take.
    """

    def __init__(
        self,
        teacher: nn.Module,
        *,
        temperature: float,
        alpha: float,
        label_smoothing: float = 0.0,
        hard: Loss | None = None,
        unchanged: Dataset | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        super().__init__()
        self.temperature, self.alpha, self.hard = temperature, alpha, hard or cross_entropy(label_smoothing)
        self._teachers = (copy.deepcopy(teacher).eval().requires_grad_(False),)  # a tuple, which state_dict ignores
        if unchanged is not None and 4 * len(unchanged.train) * len(unchanged.classes) > memory_bytes:
            unchanged = None
        self._unchanged = unchanged
        self._cached_NK: Tensor | None = None
        self._format: torch.memory_format | None = None  # of the images that the teacher takes
        self._index_B: Tensor | None = None  # of the next batch; None if it is not known to be of the dataset

    def begin(self, index_B: Tensor, progress: float) -> None:
        """Prepare for one step (see ``Objective.begin``)."""
        self._index_B = index_B if self._unchanged is not None else None

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        """Return the loss."""
        hard = self.hard(logits_BK, labels_B, images_BCHW)
        soft = soft_cross_entropy(logits_BK, self._teacher_logits(images_BCHW), self.temperature)
        return (1.0 - self.alpha) * hard + self.alpha * soft

    def _teacher_logits(self, images_BCHW: Tensor) -> Tensor:
        index_B, self._index_B = self._index_B, None
        teacher = self._teachers[0].to(images_BCHW.device)
        if index_B is None or self._unchanged is None:
            if self._format is None:
                self._format = taken_format(teacher, images_BCHW)
            with torch.no_grad():
                logits_BK: Tensor = teacher(images_BCHW.contiguous(memory_format=self._format))
            return logits_BK
        if self._cached_NK is None:
            self._cached_NK = predict(teacher, self._unchanged.train, self._unchanged, device=images_BCHW.device)
        return self._cached_NK[index_B].to(images_BCHW.device, non_blocking=True)
