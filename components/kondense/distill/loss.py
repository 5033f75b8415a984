"""The student's loss: labels, the teachers' softened outputs, and the method's part.

Shapes: B images in a batch, N images of the training split, C channels, H height, W width, K classes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kondense.distill.config import COURSES, DistillConfig
from kondense.distill.feature_loss import FeatureLoss
from kondense.distill.teachers import Teachers
from kondense.training.losses import Loss, Objective, cross_entropy, soft_divergence


def value_at(course: str, first: float, last: float, progress: float) -> float:
    """Return the value of a course from ``first`` to ``last``; a constant one remains at ``first``."""
    return first + (last - first) * COURSES[course](min(max(progress, 0.0), 1.0))


class DistillationLoss(Objective):
    """``(1 - alpha) * cross-entropy + alpha * soft cross-entropy + hint_weight * the method's part``.

    Args:
        config: weights, temperature and their courses.
        teachers: give the soft labels.
        feature_loss: the method's part, if any; its adapters are parameters of this objective.
        layers: the latest outputs of the student's hooked layers, by name.
        cached: the teachers' outputs for the training split, [N, ...] each, if computed beforehand.
        hard: the loss with the labels; cross-entropy with the config's label smoothing by default.
    """

    def __init__(
        self,
        config: DistillConfig,
        teachers: Teachers,
        feature_loss: FeatureLoss | None,
        layers: Mapping[str, Tensor],
        cached: Sequence[Tensor] = (),
        *,
        hard: Loss | None = None,
    ) -> None:
        super().__init__()
        self.config, self.teachers, self.layers, self.cached = config, teachers, layers, tuple(cached)
        self.feature_loss = feature_loss
        self.hard = hard or cross_entropy(config.label_smoothing)
        self.index_B, self.progress = torch.zeros(0, dtype=torch.int64), 0.0

    def begin(self, index_B: Tensor, progress: float) -> None:
        """Prepare for one step (see ``Objective.begin``)."""
        self.index_B, self.progress = index_B, progress

    @property
    def temperature(self) -> float:
        """The temperature of this step."""
        config = self.config
        return value_at(config.temperature_schedule, config.temperature, config.temperature_end, self.progress)

    @property
    def alpha(self) -> float:
        """The weight of the teachers' outputs in this step."""
        return value_at(self.config.alpha_schedule, self.config.alpha, self.config.alpha_end, self.progress)

    def forward(self, logits_BK: Tensor, labels_B: Tensor, images_BCHW: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar; labels are used only if the config says so."""
        outputs = self._teacher_outputs(images_BCHW)
        alpha = self.alpha
        teacher_log_BK = self.teachers.log_probabilities(outputs, self.temperature)
        loss = alpha * soft_divergence(logits_BK, teacher_log_BK, self.temperature)
        if self.config.labels:
            loss = (1.0 - alpha) * self.hard(logits_BK, labels_B, images_BCHW) + loss
        if self.feature_loss is not None:
            student_outputs = [self.layers[pair.student.name] for pair in self.feature_loss.pairs]
            targets = outputs[len(self.teachers.modules) :]
            loss = loss + self.config.hint_factor * self.feature_loss(student_outputs, targets)
        return loss

    def _teacher_outputs(self, images_BCHW: Tensor) -> list[Tensor]:
        if not self.cached:
            return self.teachers.outputs(images_BCHW)
        return [output[self.index_B].to(images_BCHW.device, non_blocking=True) for output in self.cached]
