"""Tree-structured Parzen estimator: random until the density model has enough points."""

from components.search.random_search import planned_trials, suggest, validate

__all__ = ["planned_trials", "suggest", "validate"]
