"""The parameters of the prune stage."""

import dataclasses

from components.config import option
from components.prune.fractions import parse_fractions
from components.prune.schedule import SCHEDULES
from components.training.settings import TrainingConfig

METHODS = ("fpgm", "l1", "l2", "magnitude")
TARGETS = ("macs", "parameters", "channels")
SCOPES = ("global", "layer")


@dataclasses.dataclass(frozen=True)
class PruneConfig(TrainingConfig):
    """What is removed, how, and the fine-tuning that follows."""

    epochs: int = option(
        4, "epochs of fine-tuning in all, one after each step and the rest after the last", interval="[1, 100000]"
    )
    learning_rate: float = option(0.02, "peak learning rate of fine-tuning", interval="(0, 100]")
    method: str = option("l1", "magnitude zeroes single weights; l1 removes whole channels", choices=METHODS)
    sparsity: float = option(0.65, "fraction removed: of the weights, or of what `target` counts", interval="[0, 1)")
    target: str = option("macs", "what `sparsity` is a fraction of when channels are removed", choices=TARGETS)
    scope: str = option("global", "compare scores across the network or within each layer", choices=SCOPES)
    pruning_schedule: str = option("cubic", "sparsity over the steps", choices=tuple(SCHEDULES))
    steps: int = option(3, "steps to the full sparsity; at most one per epoch is made", interval="[1, 1000]")
    round_to: int = option(8, "channel counts are multiples of it; odd counts cost time", interval="[1, 1024]")
    layers: str = option(
        "",
        "fractions of single layers, by type or module name: Conv2d=0.8,Linear=0.95,fc2=0.5; a name outweighs a type."
        " Methods that remove channels remove this fraction of the layer's",
    )
    exclude: str = option("", "layers that stay whole, by type or module name: conv1,blocks.0")
    reconstruct: bool = option(
        True, "after channels leave, fit the layers that read them to their old outputs by least squares"
    )
    temperature: float = option(4.0, "softens the logits when a teacher joins the fine-tuning", interval="(0, 1000]")
    alpha: float = option(0.5, "weight of the teacher's part of the loss, when there is one", interval="[0, 1]")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_fractions(self.layers)
