"""The parameters of the quantize stage."""

import dataclasses

from kondense.config import option
from kondense.errors import InputError
from kondense.quantize.methods import METHODS, REFINEMENTS
from kondense.training.settings import PRECISIONS, TrainingConfig

GRANULARITIES = ("channel", "tensor")
CALIBRATIONS = ("minmax", "percentile", "entropy", "mse")
SYMMETRIES = ("asymmetric", "symmetric")
ROUNDINGS = ("nearest", "learned")
ARITHMETICS = ("float", "integer")


@dataclasses.dataclass(frozen=True)
class QuantizeConfig(TrainingConfig):
    """Bits per weight, integer or float arithmetic, and the training that recovers accuracy."""

    default_rate = 0.01

    epochs: int = option(3, "epochs to train, for qat and with fine_tune", interval="[1, 100000]")
    batch_size: int = option(
        128,
        "images per training step, and the most of a calibration batch (see evaluate.batch_size)",
        interval="[1, 65536]",
    )
    learning_rate: float = option(
        0.0,
        "peak learning rate of the training; 0: 0.01, with adamw 0.0002, and a tenth of it for imported weights",
        interval="[0, 100]",
    )
    precision: str = option(
        "auto",
        "arithmetic of training, and of calibration on images of at least 16,384 values; auto: bfloat16 in training on"
        " GPUs that support it, and in calibration on processors with AMX, else float32",
        choices=PRECISIONS,
    )
    method: str = option("static", METHODS.summary(), choices=tuple(METHODS))
    bits: int = option(8, "bits per weight", interval="[2, 8]")
    granularity: str = option("channel", "one scale per output channel or per tensor", choices=GRANULARITIES)
    calibration: str = option(
        "minmax",
        "how the range of an activation is found: minimum and maximum, percentile, least Kullback-Leibler divergence"
        " (entropy) or least squared error (mse)",
        choices=CALIBRATIONS,
    )
    percentile: float = option(99.99, "share of the values that percentile calibration keeps, %", interval="[50, 100]")
    calibration_images: int = option(
        512, "number of training images to calibrate on; all if there are fewer", interval="[1, 1000000]"
    )
    activations: str = option(
        "asymmetric", "grid of an activation; a symmetric grid has zero in its middle", choices=SYMMETRIES
    )
    exclude: str = option(
        "", "static: layers to keep in float, by type or module name, such as conv1,blocks.0; try the first convolution"
    )
    equalize: bool = option(False, "static: equalise channel ranges across layers before quantizing")
    bias_correction: bool = option(False, "static: subtract the mean error of each output channel from its bias")
    rounding: str = option(
        "nearest", "static: round to nearest, or learn to round up or down on calibration images", choices=ROUNDINGS
    )
    rounding_steps: int = option(500, "optimizer steps of learned rounding per layer", interval="[1, 1000000]")
    freeze: float = option(
        0.5, "qat: fraction of the schedule after which batch norm statistics are frozen", interval="[0, 1]"
    )
    arithmetic: str = option(
        "float", "mixed: arithmetic of the layers; integer also quantizes activations, as static", choices=ARITHMETICS
    )
    budget_bytes: int = option(
        0, "mixed: maximum size of weights and scales, bytes; 0: the size at `bits` in every layer", interval="[0, inf)"
    )
    max_validation_drop: float = option(
        0.003,
        "rate_distortion: allowed drop in validation accuracy, as a fraction, from the teacher or else the model",
        interval="[0, 1]",
    )
    rounds: int = option(
        4, "rate_distortion with fine_tune: training runs of `epochs`, each closer to the bound", interval="[1, 1000]"
    )
    sensitivity: bool = option(False, "measure the accuracy with each layer alone at fewer bits, for the report")
    fine_tune: bool = option(False, "train after quantizing, with the weights kept on their grids")
    temperature: float = option(4.0, "temperature that softens the logits in the loss", interval="(0, 1000]")
    alpha: float = option(
        0.5,
        "weight of the teacher's logits in the loss; without a teacher, the unquantized model is the teacher;"
        " 0: labels only",
        interval="[0, 1]",
    )

    @property
    def trains(self) -> bool:
        """Whether the method trains with these parameters."""
        return self.fine_tune or bool(METHODS[self.method].options.get("trains"))

    def __post_init__(self) -> None:
        super().__post_init__()
        options = METHODS[self.method].options
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in REFINEMENTS:
            value = getattr(self, name)
            if value != defaults[name] and options.get(name) not in (True, self.arithmetic):
                raise InputError(
                    f"{name} must be {defaults[name]!r} with method {self.method} and {self.arithmetic} arithmetic, but"
                    f" got {value!r}; methods that use it: {', '.join(METHODS.having(name))}."
                )
