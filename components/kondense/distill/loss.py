"""The student's loss: labels, the teachers' softened outputs, and the method's part.

Shapes: B images in a batch, N images of the training split, C channels, H height, W width, K classes.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kondense.distill.config import DistillConfig
from kondense.distill.courses import value_at
from kondense.distill.feature_loss import Hint
from kondense.distill.teachers import Teachers
from kondense.training.losses import Objective, soft_divergence


class Lesson(Objective):
    """``(1 - alpha) * cross-entropy + alpha * soft cross-entropy + hint_weight * the method's part``.

    Args:
        config: weights, temperature and their courses.
        teachers: what is imitated.
        hint: the method's part, if it has one; its adapters are this objective's parameters.
        layers: outputs of the student's watched layers, by name, after a pass.
        cached: the teachers' outputs for the whole training split, [N, ...] each, if they were computed before.
    """

    def __init__(
        self,
        config: DistillConfig,
        teachers: Teachers,
        hint: Hint | None,
        layers: Mapping[str, Tensor],
        cached: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.config, self.teachers, self.layers, self.cached = config, teachers, layers, tuple(cached)
        self.hint = hint
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
        """Return the loss of a batch, a scalar; the labels count only when the config says so."""
        outputs = self._outputs(images_BCHW)
        alpha = self.alpha
        teacher_log_BK = self.teachers.log_probabilities(outputs, self.temperature)
        loss = alpha * soft_divergence(logits_BK, teacher_log_BK, self.temperature)
        if self.config.labels:
            hard = F.cross_entropy(logits_BK, labels_B, label_smoothing=self.config.label_smoothing)
            loss = (1.0 - alpha) * hard + loss
        if self.hint is not None:
            mine = [self.layers[pair.student.name] for pair in self.hint.pairs]
            loss = loss + self.config.hint_factor * self.hint(mine, outputs[len(self.teachers.modules) :])
        return loss

    def _outputs(self, images_BCHW: Tensor) -> list[Tensor]:
        if not self.cached:
            return self.teachers.outputs(images_BCHW)
        return [whole[self.index_B].to(images_BCHW.device, non_blocking=True) for whole in self.cached]
