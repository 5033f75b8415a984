"""The parameters of the quantize stage."""

import dataclasses

from components.config import option
from components.training.settings import TrainingConfig

METHODS = ("codebook", "static", "weight_only")
GRANULARITIES = ("channel", "tensor")
CALIBRATIONS = ("minmax", "percentile")


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
        "static computes on integers; weight_only stores weights in few bits; codebook lets them share 2^bits values",
        choices=METHODS,
    )
    bits: int = option(8, "bits per weight", interval="[2, 8]")
    granularity: str = option("channel", "one scale per output channel or per tensor", choices=GRANULARITIES)
    calibration: str = option("minmax", "range of an activation: extremes or percentile", choices=CALIBRATIONS)
    percentile: float = option(99.99, "share of the values that percentile calibration keeps, %", interval="[50, 100]")
    calibration_images: int = option(
        512, "training images to calibrate on; all when there are fewer", interval="[1, 1000000]"
    )
    fine_tune: bool = option(False, "train on after the weights are on their grids, staying on them")
    temperature: float = option(4.0, "softens the logits when a teacher joins the training", interval="(0, 1000]")
    alpha: float = option(0.5, "weight of the teacher's part of the loss, when there is one", interval="[0, 1]")
