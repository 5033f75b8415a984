"""Profiles: how much work a run does. Each is a set of overrides of the steps' defaults, by step and field."""

from collections.abc import Mapping

from kondense.config import check_choice

Value = int | float | str | bool
AS_PROFILE = -1  # a number in a compiled pipeline that the run's profile sets

PROFILES: Mapping[str, Mapping[str, Mapping[str, Value]]] = {
    # Every method once: minutes on two CPU cores.
    "quick": {
        "train": {"epochs": 8, "warmup_epochs": 0.5},
        "prune": {"epochs": 4, "steps": 0},
        "prune_weights": {"epochs": 5, "steps": 0},
        "distill": {"epochs": 5, "warmup_epochs": 0.5},
    },
    # The best that the methods give on small images; half an hour and more on two CPU cores.
    "full": {
        "train": {"epochs": 30, "warmup_epochs": 1.0},
        "prune": {"epochs": 12, "steps": 4},
        "prune_weights": {"epochs": 20, "steps": 10},
        "distill": {"epochs": 30, "warmup_epochs": 1.0},
    },
}
DEFAULT_PROFILE = "quick"


def alternative(step: str, error: str) -> str:
    """Return the sentence about -1 if an error's text is about a number that the profile of ``step`` sets."""
    name = error.partition(" ")[0]
    return f" {AS_PROFILE} is the number of the profile." if name in PROFILES[DEFAULT_PROFILE].get(step, {}) else ""


def settled(values: Mapping[str, Value], profile: str, step: str) -> dict[str, Value]:
    """Return a step's values, with those that are ``AS_PROFILE`` taken from a profile.

    Args:
        values: the stage's parameters.
        profile: the profile's name; it is chosen in the run form, after the pipeline was compiled.
        step: the pipeline's step.

    Raises:
        InputError: an unknown profile.
    """
    check_choice("profile", profile, tuple(PROFILES))
    numbers = PROFILES[profile].get(step, {})
    return {name: numbers[name] if value == AS_PROFILE and name in numbers else value for name, value in values.items()}
