"""The parameters of the distill stage."""

import dataclasses
import math
from collections.abc import Callable, Mapping

from kondense.config import option
from kondense.distill.methods import METHODS
from kondense.errors import InputError
from kondense.networks.names import check_form
from kondense.training.settings import TrainingConfig

LEAST_RELATED = 3  # images in a batch: relational compares distances with each other, and angles
STARTS = ("auto", "teacher", "random")
# Map progress, [0, 1], to the fraction of the way from the first value to the last.
COURSES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda progress: 0.0,
    "linear": lambda progress: progress,
    "cosine": lambda progress: 0.5 * (1.0 - math.cos(math.pi * progress)),
}
TEACHER_WEIGHTS = ("uniform", "accuracy")
HINT_WEIGHTS = {name: METHODS[name].options["hint_weight"] for name in METHODS.of_kind("layers")}


@dataclasses.dataclass(frozen=True)
class DistillConfig(TrainingConfig):
    """The student, and the teacher's part in its loss.

    The loss is ``(1 - alpha) * cross-entropy + alpha * soft cross-entropy + hint_weight * the method's loss``.
    """

    epochs: int = option(5, "epochs to train the student", interval="[1, 100000]")
    method: str = option("logits", METHODS.summary(), choices=tuple(METHODS))
    student_network: str = option(
        "", "built-in name, torchvision:<name>, or package.module:factory; empty: the teacher's network"
    )
    width: float = option(
        0.5,
        "multiplier of the student network's channels; where its factory has no width, the network loses the channels"
        " that weigh least in each layer",
        interval="(0, 16]",
    )
    start: str = option(
        "auto",
        "initial weights of the student: the teacher's most important channels, or random; auto: the teacher's if the"
        " student is the teacher with fewer channels",
        choices=STARTS,
    )
    # Validation accuracy on Fashion-MNIST at width 0.5, seed 0, start teacher, by (temperature, alpha):
    # LeNet-5, 5 epochs (teacher 92.08 %)   (2, 0.9) 91.44 %   (4, 0.9) 91.18 %; NaN at learning rate 0.1
    # ResNet-8, 4 epochs (teacher 92.24 %)  (2, 0.9) 92.06 %   (4, 0.9) 91.90 %
    temperature: float = option(2.0, "temperature that softens the logits in the loss", interval="(0, 1000]")
    temperature_schedule: str = option(
        "constant", "course of the temperature to temperature_end", choices=tuple(COURSES)
    )
    temperature_end: float = option(1.0, "temperature at the end of training, unless constant", interval="(0, 1000]")
    alpha: float = option(
        0.9, "weight of the teacher's logits in the loss, with 1 - alpha for labels", interval="[0, 1]"
    )
    alpha_schedule: str = option("constant", "course of alpha to alpha_end", choices=tuple(COURSES))
    alpha_end: float = option(0.0, "alpha at the end of training, unless constant", interval="[0, 1]")
    hint_weight: float = option(
        0.0,
        "weight of the method's loss on inner layers; 0: its default, "
        + ", ".join(f"{name} {weight:g}" for name, weight in HINT_WEIGHTS.items()),
        interval="[0, 1000000]",
    )
    hint_layers: str = option(
        "", "pairs of layers for the method's loss, teacher:student,...; empty: paired by map size and depth"
    )
    teacher_weights: str = option(
        "uniform",
        "weights of several teachers: uniform, or validation accuracy above chance",
        choices=TEACHER_WEIGHTS,
    )
    labels: bool = option(True, "use the training labels; false: only the images and the teacher")
    cache_teacher: bool = option(False, "compute the teacher's outputs once and store them; needs augment none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student_network:
            check_form(self.student_network)
        parse_hint_layers(self.hint_layers)
        for name in ("hint_layers", "hint_weight"):
            value = getattr(self, name)
            if value and self.method not in HINT_WEIGHTS:
                methods = ", ".join(HINT_WEIGHTS)
                raise InputError(f"{name} must not be set with method {self.method}, only with {methods}; got {value}.")
        if self.method == "relational" and self.batch_size < LEAST_RELATED:
            raise InputError(
                f"batch_size must be at least {LEAST_RELATED} with method relational, which compares images with each"
                f" other, but got {self.batch_size}."
            )
        if not self.labels:
            self._check_without_labels()
        if self.cache_teacher and self.augment != "none":
            raise InputError(
                f"augment must be none with cache_teacher, since every epoch has new images, but got {self.augment}."
            )

    def _check_without_labels(self) -> None:
        ends = [self.alpha] if self.alpha_schedule == "constant" else [self.alpha, self.alpha_end]
        for alpha in ends:
            if alpha != 1.0:
                raise InputError(f"alpha must be 1 throughout when labels is false, but got {alpha}.")
        if self.teacher_weights != "uniform":
            raise InputError(f"teacher_weights must be uniform when labels is false, but got {self.teacher_weights}.")

    @property
    def hint_factor(self) -> float:
        """The weight of the method's loss."""
        return self.hint_weight or HINT_WEIGHTS[self.method]


def parse_hint_layers(text: str) -> tuple[tuple[str, str], ...]:
    """Return the pairs of module names in ``teacher:student,...``; none for an empty text.

    Raises:
        InputError: the text has another form, or pairs a layer of the student twice.
    """
    pairs: list[tuple[str, str]] = []
    for part in text.split(",") if text.strip() else []:
        teacher, colon, student = (name.strip() for name in part.partition(":"))
        if not (colon and teacher and student) or ":" in student:
            raise InputError(f"hint_layers must be teacher:student,..., but got {part.strip()!r} in {text!r}.")
        if student in (name for _, name in pairs):
            raise InputError(f"hint_layers must pair every layer of the student once, but got {student!r} twice.")
        pairs.append((teacher, student))
    return tuple(pairs)
