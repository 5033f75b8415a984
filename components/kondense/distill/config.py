"""The parameters of the distill stage."""

import dataclasses
from collections.abc import Mapping

from kondense.config import option
from kondense.distill.hint_layers import parse_hint_layers
from kondense.errors import InputError
from kondense.networks.names import check_form
from kondense.training.settings import TrainingConfig

METHODS = ("logits", "features", "attention", "relational")
STARTS = ("auto", "teacher", "random")
COURSES = ("constant", "linear", "cosine")
TEACHER_WEIGHTS = ("uniform", "accuracy")
# The weight that a method gives its layers' part when `hint_weight` is 0.
HINT_WEIGHTS: Mapping[str, float] = {"features": 1.0, "attention": 10.0, "relational": 10.0}


@dataclasses.dataclass(frozen=True)
class DistillConfig(TrainingConfig):
    """Which student learns, and how the teacher's knowledge enters its loss.

    The loss is ``(1 - alpha) * cross-entropy + alpha * soft cross-entropy + hint_weight * the method's part``.
    """

    epochs: int = option(5, "epochs to train the student", interval="[1, 100000]")
    method: str = option(
        "logits", "what the student imitates beside the teacher's logits; logits is nothing more", choices=METHODS
    )
    student_network: str = option(
        "", "built-in name, torchvision:<name>, or package.module:factory; empty for the teacher's own"
    )
    width: float = option(0.5, "multiplier of the student network's channels", interval="(0, 16]")
    start: str = option(
        "auto",
        "the student's first weights: the teacher's most important channels, or random; auto takes the teacher's"
        " where the student is the teacher at fewer channels",
        choices=STARTS,
    )
    # Fashion-MNIST, width 0.5, validation, seed 0, from the teacher's channels: LeNet-5, 5 epochs (teacher 92.08 %):
    # 91.44 % at (2, 0.9), 91.18 % at (4, 0.9); at (4, 0.9) and rate 0.1 the loss turned NaN. ResNet-8, 4 epochs
    # (teacher 92.24 %): 92.06 % at (2, 0.9), 91.90 % at (4, 0.9).
    temperature: float = option(2.0, "softens the logits of teacher and student", interval="(0, 1000]")
    temperature_schedule: str = option("constant", "temperature over the run, to temperature_end", choices=COURSES)
    temperature_end: float = option(1.0, "temperature at the end, unless it is constant", interval="(0, 1000]")
    alpha: float = option(0.9, "weight of the teacher's part of the loss; the labels have the rest", interval="[0, 1]")
    alpha_schedule: str = option("constant", "alpha over the run, to alpha_end", choices=COURSES)
    alpha_end: float = option(0.0, "alpha at the end, unless it is constant", interval="[0, 1]")
    hint_weight: float = option(
        0.0,
        "weight of the layers' part; 0 takes the method's own: features 1, attention 10, relational 10",
        interval="[0, 1000000]",
    )
    hint_layers: str = option(
        "", "layers to imitate, teacher:student,...; empty pairs them by their maps' size and their depth"
    )
    teacher_weights: str = option(
        "uniform", "weights of several teachers: equal, or by validation accuracy above chance", choices=TEACHER_WEIGHTS
    )
    labels: bool = option(True, "false leaves the training labels unused: images and teacher alone teach")
    cache_teacher: bool = option(False, "compute the teacher's outputs once and keep them; needs augment none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student_network:
            check_form(self.student_network)
        parse_hint_layers(self.hint_layers)
        self._check_hints()
        self._check_labels()
        if self.cache_teacher and self.augment != "none":
            raise InputError(
                f"augment must be none with cache_teacher, since every epoch shows new images, but got {self.augment}."
            )

    def _check_hints(self) -> None:
        for name in ("hint_layers", "hint_weight"):
            value = getattr(self, name)
            if self.method == "logits" and value:
                others = ", ".join(HINT_WEIGHTS)
                raise InputError(f"{name} must be left out for the method logits; it is for {others}; but got {value}.")

    def _check_labels(self) -> None:
        if self.labels:
            return
        ends = [self.alpha] if self.alpha_schedule == "constant" else [self.alpha, self.alpha_end]
        for alpha in ends:
            if alpha != 1.0:
                raise InputError(f"alpha must be 1 throughout when labels is false, but got {alpha}.")
        if self.teacher_weights != "uniform":
            raise InputError(f"teacher_weights must be uniform when labels is false, but got {self.teacher_weights}.")

    @property
    def hint_factor(self) -> float:
        """The weight of the layers' part."""
        return self.hint_weight or HINT_WEIGHTS[self.method]
