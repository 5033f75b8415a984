"""What a trial is worth: accuracy less a price for what lies above its budgets."""

import math

from kondense.trial.config import TrialConfig


def score(config: TrialConfig, validation_accuracy: float, size_bytes: float, latency_ms: float) -> float:
    """Return validation accuracy less a price for what lies above the budgets.

    ``score = accuracy - size_weight * max(0, log2(size / size_budget)) - latency_weight * max(0, log2(latency /
    latency_budget))``: within the budgets only accuracy counts; each doubling above one costs its weight. A
    budget of 0 means none.
    """
    return (
        validation_accuracy
        - config.size_weight * _doublings(size_bytes, config.size_budget_bytes)
        - config.latency_weight * _doublings(latency_ms, config.latency_budget_ms)
    )


def _doublings(value: float, budget: float) -> float:
    return max(0.0, math.log2(value / budget)) if budget else 0.0
