"""The parameters of the quantize stage."""

import dataclasses

from components.config import Config, option

METHODS = ("static", "weight_only")
GRANULARITIES = ("channel", "tensor")
CALIBRATIONS = ("minmax", "percentile")


@dataclasses.dataclass(frozen=True)
class QuantizeConfig(Config):
    """In how many bits weights are stored, and whether the network computes on integers."""

    method: str = option(
        "static", "static computes on integers; weight_only stores weights in few bits", choices=METHODS
    )
    bits: int = option(8, "bits per weight", interval="[2, 8]")
    granularity: str = option("channel", "one scale per output channel or per tensor", choices=GRANULARITIES)
    calibration: str = option("minmax", "range of an activation: extremes or percentile", choices=CALIBRATIONS)
    percentile: float = option(99.99, "share of the values that percentile calibration keeps, %", interval="[50, 100]")
    calibration_images: int = option(
        512, "training images to calibrate on; all when there are fewer", interval="[1, 1000000]"
    )
    batch_size: int = option(128, "calibration images at a time", interval="[1, 65536]")
    seed: int = option(0, "seed of the choice of calibration images", interval="[0, 2147483647]")
