"""The spaces of the tables: every combination of a few values per hyperparameter, numbered in mixed radix.

Legend: N configurations, R resources (1 to 81), D hyperparameters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MAX_RESOURCE = 81
STEPS = 65_535  # of a stored loss, uint16


@dataclass(frozen=True)
class Grid:
    """One table's hyperparameters and what its losses are.

    Args:
        values: of each hyperparameter, in order: numbers in rising order, or words.
        scale: the largest loss; a stored number n means n / STEPS * scale.
        unit: what a resource of 1 is.
        loss: what the loss is.
    """

    values: Mapping[str, tuple[float | str, ...]]
    scale: float
    unit: str
    loss: str

    @property
    def size(self) -> int:
        """N."""
        return math.prod(map(len, self.values.values()))

    def configuration(self, number: int) -> dict[str, float | str]:
        """Return configuration `number`; the last hyperparameter changes fastest."""
        chosen: dict[str, float | str] = {}
        for name, values in reversed(self.values.items()):
            number, position = divmod(number, len(values))
            chosen[name] = values[position]
        return chosen

    def number(self, positions: Mapping[str, int]) -> int:
        """Return the number of the configuration with these positions in the lists of values."""
        total = 0
        for name, values in self.values.items():
            total = total * len(values) + positions[name]
        return total

    def columns(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of configurations `numbers` by hyperparameter, each an array of their count."""
        chosen = [self.configuration(int(number)) for number in numbers]
        return {name: np.array([configuration[name] for configuration in chosen]) for name in self.values}

    def store(self, losses: np.ndarray) -> np.ndarray:
        """Return losses [N, R] as uint16; beyond the scale, or not finite, is the scale."""
        shares = np.clip(np.nan_to_num(losses, nan=np.inf, posinf=np.inf) / self.scale, 0, 1)
        return np.rint(shares * STEPS).astype(np.uint16)


RATES = tuple(round(0.003 * 10 ** (i / 3), 5) for i in range(8))  # 0.003 to 0.646

GRIDS: dict[str, Grid] = {
    "digits-network": Grid(
        {
            "lr": RATES,
            "momentum": (0.0, 0.8, 0.95),
            "batch_size": (32, 96, 300),
            "width": (4, 12, 36),
            "schedule": ("constant", "cosine"),
            "activation": ("relu", "tanh"),
        },
        scale=1.0,
        unit="epoch over 600 images of scikit-learn's digits",
        loss="share of 1,197 other images that is misclassified",
    ),
    "fashion-network": Grid(
        {
            "lr": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
            "optimizer": ("sgd", "adam"),
            "batch_size": (100, 250),
            "width": (4, 12, 32),
            "weight_decay": (0.0, 0.001, 0.01, 0.05),
            "dropout": (0.0, 0.3),
        },
        scale=1.0,
        unit="epoch over 1,000 images of Fashion-MNIST, averaged to 7x7 pixels",
        loss="share of 2,000 other images that is misclassified",
    ),
    "cancer-boosting": Grid(
        {
            "learning_rate": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
            "max_leaf_nodes": (3, 7, 15, 31),
            "min_samples_leaf": (1, 5, 20, 60),
            "l2_regularization": (0.0, 1.0, 20.0),
            "max_features": (0.1, 0.3, 1.0),
        },
        scale=1.0,
        unit="tree of histogram gradient boosting on 284 rows of scikit-learn's breast cancer",
        loss="log loss on the other 285 rows",
    ),
    "diabetes-boosting": Grid(
        {
            "learning_rate": (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0),
            "max_depth": (1, 2, 3, 5),
            "subsample": (0.2, 0.5, 1.0),
            "min_samples_leaf": (1, 5, 20),
            "max_features": (0.1, 0.4, 1.0),
            "loss": ("squared_error", "absolute_error"),
        },
        scale=2.0,
        unit="tree of gradient boosting on 221 rows of scikit-learn's diabetes",
        loss="1 - R^2 on the other 221 rows",
    ),
    "digits-forest": Grid(
        {
            "max_depth": (2, 4, 8, 16),
            "min_samples_leaf": (1, 2, 5, 10),
            "max_features": (0.02, 0.1, 0.3, 0.6, 1.0),
            "max_samples": (0.3, 1.0),
            "criterion": ("gini", "entropy"),
            "splitter": ("best", "random"),
        },
        scale=1.0,
        unit="tree of a forest on 300 images of scikit-learn's digits",
        loss="share of 1,497 other images that is misclassified",
    ),
}
