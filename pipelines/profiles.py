"""Profiles: how much work a run does. Each is a set of overrides of the steps' defaults, by step and field."""

from collections.abc import Mapping

Value = int | float | str | bool

PROFILES: Mapping[str, Mapping[str, Mapping[str, Value]]] = {
    # A look at everything: minutes on two CPU cores.
    "quick": {
        "train": {"epochs": 8},
        "prune": {"epochs": 4},
        "sparsify": {"epochs": 5},
        "distill": {"epochs": 5},
    },
    # The best that the methods give on small images; half an hour and more on two CPU cores.
    "full": {
        "train": {"epochs": 30, "warmup_epochs": 1.0},
        "prune": {"epochs": 12, "steps": 4},
        "sparsify": {"epochs": 20, "steps": 10},
        "distill": {"epochs": 30, "warmup_epochs": 1.0},
    },
}
DEFAULT_PROFILE = "quick"
