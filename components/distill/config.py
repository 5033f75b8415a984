"""The parameters of the distill stage."""

import dataclasses

from components.config import option
from components.networks.names import check_form
from components.training.settings import TrainingConfig

METHODS = ("logits",)


@dataclasses.dataclass(frozen=True)
class DistillConfig(TrainingConfig):
    """Which student learns, and how the teacher's knowledge enters its loss."""

    epochs: int = option(6, "epochs to train the student", interval="[1, 100000]")
    method: str = option("logits", "what of the teacher the student imitates", choices=METHODS)
    student_network: str = option(
        "", "built-in name, torchvision:<name>, or package.module:factory; empty for the teacher's own"
    )
    width: float = option(0.5, "multiplier of the student network's channels", interval="(0, 16]")
    # LeNet-5 at width 0.5, Fashion-MNIST, 6 epochs, one seed, teacher 91.75 %: 91.14 % at (2, 0.7), rate 0.05;
    # 90.87 % at (4, 0.9), rate 0.03; at (4, 0.9), rate 0.1 the loss turned NaN.
    temperature: float = option(2.0, "softens the logits of teacher and student", interval="(0, 1000]")
    alpha: float = option(0.7, "weight of the teacher's part of the loss; the labels have the rest", interval="[0, 1]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.student_network:
            check_form(self.student_network)
