"""Three more problems: two engineering functions with fidelities, and a made-up training with a mixed space.

Sources: Borehole and Currin with the low fidelity of Xiong et al. 2013, and between the two as in Kandasamy et al.
2017 (BOCA). The training is ours: power laws that cross, in steps of a test set's size and with its noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from kondense.search.space import Parameter, SearchSpace

MAX_RESOURCE = 81

BOREHOLE = (
    Parameter("rw", "double", 0.05, 0.15),
    Parameter("r", "double", 100.0, 50_000.0, distribution="logUniform"),
    Parameter("tu", "double", 63_070.0, 115_600.0),
    Parameter("hu", "double", 990.0, 1_110.0),
    Parameter("tl", "double", 63.1, 116.0),
    Parameter("hl", "double", 700.0, 820.0),
    Parameter("l", "double", 1_120.0, 1_680.0),
    Parameter("kw", "double", 9_855.0, 12_045.0),
)
CURRIN_MAXIMUM = 13.7987
LEAST_ERROR = 0.0760  # of the training, by a search in steps


@dataclass(frozen=True)
class Borehole:
    """Negative share of the greatest flow of water, 8 variables; noise only below the full resource."""

    name: str = "borehole"
    noise: float = 0.05
    min_resource: int = 1
    max_resource: int = MAX_RESOURCE

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(BOREHOLE)

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        share = resource / self.max_resource
        x = {name: float(value) for name, value in configuration.items()}
        flow = share * _flow(x, 2 * math.pi, 1.0) + (1 - share) * _flow(x, 5.0, 1.5)
        return -flow / GREATEST + self.noise * (1 - share) * float(rng.standard_normal())

    def regret(self, configuration: Mapping[str, str]) -> float:
        return 1 - _flow({name: float(value) for name, value in configuration.items()}, 2 * math.pi, 1.0) / GREATEST


def _flow(x: Mapping[str, float], factor: float, one: float) -> float:
    spread = math.log(x["r"] / x["rw"])
    leak = 2 * x["l"] * x["tu"] / (spread * x["rw"] ** 2 * x["kw"])
    return factor * x["tu"] * (x["hu"] - x["hl"]) / (spread * (one + leak + x["tu"] / x["tl"]))


GREATEST = _flow(
    {"rw": 0.15, "r": 100, "tu": 115_600, "hu": 1_110, "tl": 116, "hl": 700, "l": 1_120, "kw": 12_045}, 2 * math.pi, 1.0
)


@dataclass(frozen=True)
class Currin:
    """Negative Currin function, 2 variables, with noise at every resource."""

    name: str = "currin"
    noise: float = 0.5
    min_resource: int = 1
    max_resource: int = MAX_RESOURCE

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(tuple(Parameter(f"x{i}", "double", 0.0, 1.0) for i in range(2)))

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        share = resource / self.max_resource
        return self._value(configuration, share) + self.noise * float(rng.standard_normal())

    def regret(self, configuration: Mapping[str, str]) -> float:
        return self._value(configuration, 1.0) + CURRIN_MAXIMUM

    def _value(self, configuration: Mapping[str, str], share: float) -> float:
        x, y = float(configuration["x0"]), float(configuration["x1"])
        low = math.exp(-1 / (2 * y)) if y > 0 else 0.0
        top = 2300 * x**3 + 1900 * x**2 + 2092 * x + 60
        bottom = 100 * x**3 + 500 * x**2 + 4 * x + 20
        return -(1 - low) * top / bottom * (1 - 0.1 * (1 - share) * low)


@dataclass(frozen=True)
class Training:
    """Share of misclassified images of a made-up training: 6 mixed hyperparameters, `images` tested.

    A larger network and a slower rate end better and begin worse, so that curves cross.
    """

    name: str = "training"
    images: int = 400
    min_resource: int = 1
    max_resource: int = MAX_RESOURCE

    @property
    def space(self) -> SearchSpace:
        return SearchSpace(
            (
                Parameter("lr", "double", 1e-4, 1.0, distribution="logUniform"),
                Parameter("width", "int", 8, 256, distribution="logUniform"),
                Parameter("dropout", "double", 0.0, 0.6, step=0.1),
                Parameter("optimizer", "categorical", values=("sgd", "adam", "lamb", "rmsprop")),
                Parameter("batch", "discrete", values=("32", "64", "128", "256")),
                Parameter("augment", "categorical", values=("none", "flip", "cutout")),
            )
        )

    def loss(self, configuration: Mapping[str, str], resource: int, rng: np.random.Generator) -> float:
        return float(rng.binomial(self.images, self._error(configuration, resource)) / self.images)

    def regret(self, configuration: Mapping[str, str]) -> float:
        return self._error(configuration, self.max_resource) - LEAST_ERROR

    def _error(self, configuration: Mapping[str, str], resource: int) -> float:
        rate = math.log10(float(configuration["lr"]))
        middle = {"sgd": -1.0, "adam": -2.0, "lamb": -1.5, "rmsprop": -2.5}[configuration["optimizer"]]
        size = math.log2(float(configuration["width"]) / 8) / 5
        batch = math.log2(float(configuration["batch"]) / 32) / 3
        dropout, augment = float(configuration["dropout"]), ("none", "flip", "cutout").index(configuration["augment"])
        floor = 0.05 + 0.03 * {"sgd": 1, "adam": 0, "lamb": 2, "rmsprop": 3}[configuration["optimizer"]] / 3
        floor += 0.08 * (1 - size) + 0.03 * batch + 0.1 * (dropout - 0.1 - 0.1 * size) ** 2 + 0.015 * (2 - augment)
        floor += 0.05 * (rate - middle - 0.3 * batch) ** 2 if abs(rate - middle) < 2 else 0.3
        speed = 1.5 - 0.4 * size - 0.15 * augment - 0.5 * dropout + 0.1 * (rate - middle)
        return min(floor + 0.8 * resource ** -max(speed, 0.1) * (1 - floor), 0.9)
