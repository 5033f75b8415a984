"""The parameters of the prune stage."""

import dataclasses

from kondense.config import option
from kondense.errors import InputError
from kondense.prune.fractions import parse_fractions, parse_pattern
from kondense.prune.schedule import SCHEDULES
from kondense.training.settings import OPTIMIZERS, TrainingConfig

METHODS = (
    "bn_scale",
    "constrained",
    "fpgm",
    "greedy",
    "l1",
    "l2",
    "lottery",
    "magnitude",
    "nm",
    "random",
    "taylor",
    "taylor_channel",
)
MASKING = ("constrained", "lottery", "magnitude", "nm", "random", "taylor")  # these zero weights, shapes stay
LAYER_ADAPTIVE = ("lottery", "magnitude", "taylor")
FIXED = ("constrained", "lottery", "nm")  # these cannot be asked what another sparsity would cost
TARGETS = ("macs", "parameters", "bytes", "channels", "latency")
CRITERIA = ("fpgm", "l1", "l2", "taylor_channel")
SCOPES = ("auto", "global", "lamp", "layer")
GRANULARITIES = ("weights", "kernels", "neurons")


@dataclasses.dataclass(frozen=True)
class PruneConfig(TrainingConfig):
    """What is removed, how, and the fine-tuning that follows."""

    epochs: int = option(
        4, "epochs of fine-tuning in all, one after each step and the rest after the last", interval="[1, 100000]"
    )
    batch_size: int = option(64, "images per step of fine-tuning", interval="[1, 65536]")
    learning_rate: float = option(0.05, "peak learning rate of fine-tuning", interval="(0, 100]")
    # ResNet-8, 70 % fewer MACs, 1 epoch, 3 seeds, test: muon lost 1.13 points, sgd 1.43; with masks it gains nothing
    # (LeNet-5, 98 %, 5 epochs, seed 0, convolutions only: .60 and .69).
    optimizer: str = option(
        "auto", "sgd, muon (see train), or auto: muon where channels leave", choices=("auto", *OPTIMIZERS)
    )
    method: str = option("l1", "magnitude zeroes single weights; l1 removes whole channels", choices=METHODS)
    sparsity: float = option(0.75, "fraction removed: of the weights, or of what `target` counts", interval="[0, 1)")
    target: str = option("macs", "what `sparsity` is a fraction of when channels are removed", choices=TARGETS)
    # LeNet-300-100, 5 epochs, 3 seeds, test: at 95 / 98 % lamp lost .68 / 1.45 points, global .75 / 1.53.
    scope: str = option(
        "auto",
        "compare scores across the network, within each layer, or across it by LAMP; auto is lamp with magnitude,"
        " global with the others",
        choices=SCOPES,
    )
    pruning_schedule: str = option("cubic", "sparsity over the steps", choices=tuple(SCHEDULES))
    steps: int = option(
        0,
        "steps to the full sparsity; 0: 1 for channels (3 unless reconstruct), 100 for weights. Channels leave between"
        " epochs, so at most one step per epoch is made",
        interval="[0, 10000]",
    )
    pruning_end: float = option(
        0.6, "fraction of the epochs after which masks have their full sparsity; the rest tunes", interval="(0, 1]"
    )
    granularity: str = option("weights", "what masks zero as one", choices=GRANULARITIES)
    pattern: str = option("2:4", "n:m of method nm: of every m consecutive inputs, n stay")
    rewind_epochs: int = option(
        1, "epoch of the model's own training that lottery goes back to", interval="[0, 100000]"
    )
    penalty: float = option(1e-3, "pull towards the budgets with constrained, at first", interval="(0, 1000]")
    penalty_growth: float = option(100.0, "how many times harder that pull is at last", interval="[1, 1000000]")
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
    max_validation_drop: float = option(
        1.0,
        "validation accuracy that pruning may cost, right after it, a fraction; `sparsity` is then the most that is"
        " removed; 1 sets no bound",
        interval="[0, 1]",
    )
    trial_epochs: int = option(
        0, "epochs that a network tried for max_validation_drop is fine-tuned, on top of `epochs`", interval="[0, 1000]"
    )
    criterion: str = option("l2", "which channels of a group greedy removes first", choices=CRITERIA)
    slice: float = option(0.05, "fraction of the whole that one removal of greedy saves", interval="(0, 1]")
    sparse_epochs: int = option(
        1, "epochs, of `epochs`, that bn_scale trains the scales towards zero", interval="[0, 100000]"
    )
    sparse_penalty: float = option(1e-3, "weight of the sum of the scales in bn_scale's loss", interval="[0, 100]")
    latency_batch_size: int = option(64, "images in the batch that target=latency times", interval="[1, 65536]")
    sensitivity: bool = option(False, "also measure the accuracy with each layer pruned alone")
    temperature: float = option(4.0, "softens the logits of teacher and student in the loss", interval="(0, 1000]")
    alpha: float = option(
        0.9,
        "weight of the teacher's logits in the loss; without a teacher the unpruned network teaches; 0: labels only",
        interval="[0, 1]",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_fractions(self.layers)
        parse_pattern(self.pattern)
        if self.scope == "lamp" and self.method not in LAYER_ADAPTIVE:
            raise InputError(
                f"scope must be lamp with {', '.join(LAYER_ADAPTIVE)} only, but got it with {self.method}."
            )
        if self.method in FIXED and (self.sensitivity or self.max_validation_drop < 1.0):
            raise InputError(
                f"sensitivity and max_validation_drop must go with a method that can be tried at any sparsity, but got"
                f" {self.method}."
            )

    @property
    def comparison(self) -> str:
        """The scope that is meant: ``global``, ``lamp`` or ``layer``."""
        automatic = "lamp" if self.method == "magnitude" else "global"
        return automatic if self.scope == "auto" else self.scope

    @property
    def training_optimizer(self) -> str:
        """The optimizer that is meant, one of ``OPTIMIZERS``."""
        automatic = "sgd" if self.method in MASKING else "muon"
        return automatic if self.optimizer == "auto" else self.optimizer
