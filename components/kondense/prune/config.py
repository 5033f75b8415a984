"""The parameters of the prune stage."""

import dataclasses

from kondense.config import option
from kondense.errors import InputError
from kondense.prune.fractions import parse_fractions, parse_pattern
from kondense.prune.methods import METHODS
from kondense.prune.schedule import SCHEDULES
from kondense.training.settings import OPTIMIZERS, TrainingConfig

LAYER_ADAPTIVE = METHODS.having("layer_adaptive")
TARGETS = ("macs", "parameters", "bytes", "channels", "latency")
AUTO_OPTIMIZERS = {"channels": "muon", "weights": "sgd"}  # by the method's kind
SCOPES = ("auto", "global", "lamp", "layer")
GRANULARITIES = ("weights", "kernels", "neurons")


@dataclasses.dataclass(frozen=True)
class PruneConfig(TrainingConfig):
    """The pruning method, how much it removes, and the fine-tuning that follows."""

    epochs: int = option(
        4, "epochs of fine-tuning in total: one after each step, the rest after the last", interval="[1, 100000]"
    )
    batch_size: int = option(64, "images per step of fine-tuning", interval="[1, 65536]")
    # ResNet-8, 70 % fewer MACs, 1 epoch, 3 seeds, test: muon lost 1.13 points, sgd 1.43; with masks it gains nothing
    # (LeNet-5, 98 %, 5 epochs, seed 0, convolutions only: 0.60 and 0.69).
    optimizer: str = option(
        "auto", "optimizer; auto: Muon for channel pruning, SGD for weight pruning", choices=("auto", *OPTIMIZERS)
    )
    method: str = option("l1", f"pruning method; {METHODS.summary()}", choices=tuple(METHODS))
    sparsity: float = option(
        0.75, "fraction to remove: of the weights, or of `target` for channel methods", interval="[0, 1)"
    )
    target: str = option("macs", "channel methods: the cost that `sparsity` is a fraction of", choices=TARGETS)
    # LeNet-300-100, 5 epochs, 3 seeds, test: at 95 / 98 % lamp lost 0.68 / 1.45 points, global 0.75 / 1.53.
    scope: str = option(
        "auto",
        "rank scores across the network (global), across it after LAMP normalisation (lamp) or within each layer;"
        " auto: lamp for magnitude, global for other methods",
        choices=SCOPES,
    )
    pruning_schedule: str = option("cubic", "sparsity as a function of the steps", choices=tuple(SCHEDULES))
    steps: int = option(
        0,
        "steps to the full sparsity; 0: 1 for channel methods (3 without `reconstruct`), 100 for weight methods."
        " Channels are removed between epochs, so there is at most one step per epoch",
        interval="[0, 10000]",
    )
    pruning_end: float = option(
        0.6, "weight methods: fraction of the epochs after which the full sparsity is reached", interval="(0, 1]"
    )
    granularity: str = option("weights", "weight methods: unit that is zeroed as one", choices=GRANULARITIES)
    pattern: str = option("2:4", "nm: n:m, keep n of every m consecutive inputs")
    rewind_epochs: int = option(1, "lottery: epoch of the model's training to rewind to", interval="[0, 100000]")
    penalty: float = option(1e-3, "constrained: initial weight of the penalty", interval="(0, 1000]")
    penalty_growth: float = option(
        100.0, "constrained: final weight of the penalty, as a multiple of the initial one", interval="[1, 1000000]"
    )
    round_to: int = option(8, "channel methods: channel counts are multiples of this", interval="[1, 1024]")
    layers: str = option(
        "",
        "fraction to remove from single layers, by type or module name: Conv2d=0.8,Linear=0.95,fc2=0.5; a name"
        " outweighs a type. Channel methods remove this fraction of the layer's channels",
    )
    exclude: str = option("", "layers not to prune, by type or module name: conv1,blocks.0")
    reconstruct: bool = option(
        True, "channel methods: fit the layers after a removal to their previous outputs by least squares"
    )
    max_validation_drop: float = option(
        1.0,
        "largest loss of validation accuracy, a fraction, directly after pruning; `sparsity` is then an upper limit;"
        " 1: no bound",
        interval="[0, 1]",
    )
    trial_epochs: int = option(
        0,
        "max_validation_drop: epochs of fine-tuning for each tried sparsity, in addition to `epochs`",
        interval="[0, 1000]",
    )
    criterion: str = option(
        "l2", "greedy: score that ranks the channels of a group", choices=METHODS.having("criterion")
    )
    slice: float = option(0.05, "greedy: fraction of the total cost that one removal saves", interval="(0, 1]")
    sparse_epochs: int = option(
        1, "bn_scale: epochs, out of `epochs`, of training with the penalty on the scales", interval="[0, 100000]"
    )
    sparse_penalty: float = option(
        1e-3, "bn_scale: weight of the L1 norm of the scales in the loss", interval="[0, 100]"
    )
    latency_batch_size: int = option(64, "target latency: images per timed batch", interval="[1, 65536]")
    sensitivity: bool = option(False, "also measure the accuracy with each layer pruned alone, for the report")
    temperature: float = option(4.0, "softens the logits of teacher and student in the loss", interval="(0, 1000]")
    alpha: float = option(
        0.9,
        "weight of the teacher's logits in the loss (default teacher: the unpruned network); 0: labels only",
        interval="[0, 1]",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_fractions(self.layers)
        parse_pattern(self.pattern)
        if self.scope == "lamp" and self.method not in LAYER_ADAPTIVE:
            raise InputError(f"scope lamp needs one of the methods {', '.join(LAYER_ADAPTIVE)}, but got {self.method}.")
        if self.method in METHODS.having("fixed_sparsity") and (self.sensitivity or self.max_validation_drop < 1.0):
            raise InputError(
                f"sensitivity and max_validation_drop need a method that can be tried at any sparsity, but got"
                f" {self.method}."
            )

    @property
    def comparison(self) -> str:
        """The effective scope: ``global``, ``lamp`` or ``layer``."""
        return METHODS[self.method].options.get("scope", "global") if self.scope == "auto" else self.scope

    @property
    def training_optimizer(self) -> str:
        """The effective optimizer, one of ``OPTIMIZERS``."""
        return AUTO_OPTIMIZERS[METHODS[self.method].kind] if self.optimizer == "auto" else self.optimizer
