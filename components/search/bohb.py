"""BOHB: Hyperband whose new configurations come from a density model."""

from components.search.hyperband import planned_trials, suggest, validate

__all__ = ["planned_trials", "suggest", "validate"]
