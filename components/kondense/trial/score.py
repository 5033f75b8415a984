"""The score of a trial: accuracy less a penalty for size and latency above their budgets."""

import math

from kondense.trial.config import TrialConfig


def score(config: TrialConfig, validation_accuracy: float, size_bytes: float, latency_ms: float) -> float:
    """Return validation accuracy less a penalty for size and latency above the budgets.

    ``score = accuracy - size_weight * max(0, log2(size / size_budget)) - latency_weight * max(0, log2(latency /
    latency_budget))``: within the budgets only accuracy counts; each doubling above a budget costs its weight. A
    budget of 0 means no limit.
    """
    return (
        validation_accuracy
        - config.size_weight * _doublings(size_bytes, config.size_budget_bytes)
        - config.latency_weight * _doublings(latency_ms, config.latency_budget_ms)
    )


def _doublings(value: float, budget: float) -> float:
    return max(0.0, math.log2(value / budget)) if budget else 0.0
