"""The parameters of the quantize stage."""

import dataclasses

from kondense.config import option
from kondense.errors import InputError
from kondense.training.settings import TrainingConfig

METHODS = ("codebook", "dynamic", "fixed_point", "mixed", "qat", "rate_distortion", "static", "weight_only")
GRANULARITIES = ("channel", "tensor")
CALIBRATIONS = ("minmax", "percentile", "entropy", "mse")
SYMMETRIES = ("asymmetric", "symmetric")
ROUNDINGS = ("nearest", "learned")
ARITHMETICS = ("float", "integer")
TUNABLE = ("codebook", "fixed_point", "mixed", "rate_distortion", "weight_only")  # qat always trains


@dataclasses.dataclass(frozen=True)
class QuantizeConfig(TrainingConfig):
    """In how many bits weights are stored, whether the network computes on integers, and the training that helps."""

    epochs: int = option(3, "epochs that methods which train, or fine_tune, train", interval="[1, 100000]")
    batch_size: int = option(
        128, "images per step of training, and calibration images at a time", interval="[1, 65536]"
    )
    learning_rate: float = option(0.01, "peak learning rate of that training", interval="(0, 100]")
    method: str = option(
        "static",
        "static computes on integers, on grids found by calibration; qat trains on such grids; dynamic finds the"
        " activations' grids anew at run time; weight_only stores weights in few bits, mixed gives each layer its own"
        " number of bits, codebook lets weights share 2^bits values, fixed_point stores them as fractions in [-1, 1),"
        " rate_distortion finds the smallest kz file within max_validation_drop",
        choices=METHODS,
    )
    bits: int = option(8, "bits per weight", interval="[2, 8]")
    granularity: str = option("channel", "one scale per output channel or per tensor", choices=GRANULARITIES)
    calibration: str = option(
        "minmax",
        "range of an activation: extremes, percentile, least divergence or least squared error",
        choices=CALIBRATIONS,
    )
    percentile: float = option(99.99, "share of the values that percentile calibration keeps, %", interval="[50, 100]")
    calibration_images: int = option(
        512, "training images to calibrate on; all when there are fewer", interval="[1, 1000000]"
    )
    activations: str = option(
        "asymmetric", "grid of an activation; a symmetric one has zero in its middle", choices=SYMMETRIES
    )
    exclude: str = option(
        "",
        "static: layers that stay in float, by type or module name: conv1,blocks.0; a first convolution may gain by it",
    )
    equalize: bool = option(False, "static: equalise the ranges of channels across layers first")
    bias_correction: bool = option(False, "static: take the mean error of each output channel out of its bias")
    rounding: str = option(
        "nearest", "static: to the nearest integer, or up or down as the outputs on images want it", choices=ROUNDINGS
    )
    rounding_steps: int = option(500, "steps of learned rounding per layer", interval="[1, 1000000]")
    freeze: float = option(
        0.5, "qat: share of the schedule after which batch norms keep their statistics", interval="[0, 1]"
    )
    arithmetic: str = option(
        "float", "mixed: what layers compute on; integer quantizes activations as static does", choices=ARITHMETICS
    )
    budget_bytes: int = option(
        0,
        "mixed: most bytes that weights and scales take; 0 means as many as `bits` for every layer",
        interval="[0, inf)",
    )
    max_validation_drop: float = option(
        0.003,
        "rate_distortion: fraction of the validation split that may be lost against the teacher, or else the model",
        interval="[0, 1]",
    )
    rounds: int = option(
        4,
        "rate_distortion with fine_tune: trainings of `epochs`, each closer to the bound",
        interval="[1, 1000]",
    )
    sensitivity: bool = option(False, "also measure what each layer alone loses at fewer bits, for the report")
    fine_tune: bool = option(False, "train on after the weights are on their grids, staying on them")
    temperature: float = option(4.0, "softens the logits of teacher and student in the loss", interval="(0, 1000]")
    alpha: float = option(
        0.5,
        "weight of the teacher's logits in the loss; without a teacher the model as it came in teaches; 0: labels only",
        interval="[0, 1]",
    )

    @property
    def trains(self) -> bool:
        """Whether the method trains with these parameters."""
        return self.method == "qat" or self.fine_tune

    def __post_init__(self) -> None:
        super().__post_init__()
        # What a method would not heed is refused, so that nobody takes it for done.
        for name, asked in (
            ("equalize", self.equalize),
            ("bias_correction", self.bias_correction),
            ("rounding", self.rounding == "learned"),
        ):
            if asked and not (self.method == "static" or (self.method, self.arithmetic) == ("mixed", "integer")):
                raise InputError(
                    f"{name} must be left as it is unless method is static, or mixed with integer arithmetic, but got"
                    f" {getattr(self, name)} with {self.method}."
                )
        if self.exclude.strip() and self.method != "static":
            raise InputError(
                f"exclude must be empty unless method is static, but got {self.exclude!r} with {self.method}."
            )
        if self.fine_tune and self.method not in TUNABLE:
            raise InputError(
                f"fine_tune must be false unless method is one of {', '.join(TUNABLE)}, but got true with"
                f" {self.method}; qat is static with training."
            )
