"""The choice of a candidate with its reason; Pareto fronts. Stdlib only.

The bound on accuracy is checked on the validation split, so the test accuracy of the chosen model is unbiased.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kondense.artifacts.report import Candidate, Evaluation
from kondense.report.figures import points, signed_points, size, times

TOLERANCE = 1e-9  # a drop of exactly the bound is allowed

OBJECTIVES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "bytes": lambda difference: float(difference["bytes_ratio"]),
    "latency": lambda difference: float(difference["latency_ratio"]),
    "balanced": lambda difference: math.sqrt(difference["bytes_ratio"] * difference["latency_ratio"]),
}
FORMULAS = {
    "bytes": "size ratio, bytes of the teacher in fp32 / bytes of weights.kz",
    "latency": "latency ratio, the teacher's median / this median, exported models in turns at batch 1",
    "balanced": "the geometric mean of size and latency ratios, √(size ratio × latency ratio)",
}
MEASURES = {
    "bytes": "size ratio",
    "latency": "latency ratio",
    "balanced": "geometric mean of size and latency ratios",
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """Name of the chosen model, and the reason, one sentence with figures."""

    name: str
    reason: str


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[bool]:
    """Return for every model whether no other is at least as good in both and better in one.

    Args:
        costs: bytes or milliseconds; less is better.
        accuracies: in the same order; more is better.
    """
    pairs = list(zip(costs, accuracies, strict=True))
    return [
        not any(
            other_cost <= cost and other_accuracy >= accuracy and (other_cost, other_accuracy) != (cost, accuracy)
            for other_cost, other_accuracy in pairs
        )
        for cost, accuracy in pairs
    ]


MET, UNDECIDED, MISSED = "met", "undecided", "missed"


def decided(difference: Mapping[str, Any], max_validation_drop: float) -> str:
    """Return what the images tell about the bound: the difference's interval lies within, without or on both sides.

    Without an interval, the difference itself decides.
    """
    spread = difference.get("validation_interval")
    change = difference["validation_accuracy"]
    low, high = (spread["low"], spread["high"]) if spread else (change, change)
    if low >= -max_validation_drop - TOLERANCE:
        return MET
    return MISSED if high < -max_validation_drop - TOLERANCE else UNDECIDED


def within_bound(teacher: Evaluation, candidate: Evaluation, max_validation_drop: float) -> bool:
    """Return whether the candidate's validation accuracy is at most ``max_validation_drop`` below the teacher's."""
    return teacher["validation_accuracy"] - candidate["validation_accuracy"] <= max_validation_drop + TOLERANCE


def choose(teacher: Candidate, candidates: Sequence[Candidate], objective: str, max_validation_drop: float) -> Choice:
    """Return the candidate with the best score among those within the bound, else the teacher.

    Those that are known to be within it come first: the interval of their difference is. If there is none, the images
    cannot decide, and those whose difference itself is within the bound are taken; the reason says so.

    Ties are resolved by the higher validation accuracy, then by the order. The teacher is kept unless a candidate has a
    better score.

    Args:
        teacher: the uncompressed model.
        candidates: the other models, with ``score`` and ``within_bound``.
        objective: a key of ``OBJECTIVES``.
        max_validation_drop: the bound, for the reason.
    """
    if not candidates:
        return Choice(teacher["name"], f"There is no candidate beside {teacher['name']}.")
    bound = f"validation accuracy at most {points(max_validation_drop)} points below the teacher's"
    allowed = [candidate for candidate in candidates if candidate["within_bound"]]
    if not allowed:
        return Choice(teacher["name"], _none_allowed(candidates, bound))
    known = [candidate for candidate in allowed if candidate.get("bound", MET) == MET]
    best = max(known or allowed, key=lambda candidate: (candidate["score"], candidate["validation_accuracy"]))
    meet = "meets" if len(allowed) == 1 else "meet"
    count = f"Of {len(candidates)} candidates, {len(allowed)} {meet} the bound ({bound})"
    if len(candidates) == len(allowed) == 1:
        count = f"The only candidate meets the bound ({bound})"
    count += _undecided(teacher, known, allowed)
    if best["score"] <= teacher["score"]:
        reason = (
            f"{count}, but none is better than {teacher['name']}: the nearest is {best['name']}, with a"
            f" {MEASURES[objective]} of {times(best['score'])} against {times(teacher['score'])}."
        )
        return Choice(teacher["name"], reason)
    difference = best["difference"]
    value = f", {times(best['score'])}" if objective == "balanced" else ""
    reason = (
        f"{count}, and {best['name']} has the largest {MEASURES[objective]} among them{value}"
        f" ({times(difference['bytes_ratio'])} smaller at {size(best['bytes']['kz'])},"
        f" {times(difference['latency_ratio'])} the teacher's speed{_interval(best)}), with"
        f" {points(best['test_accuracy'])} % test accuracy, {signed_points(difference['test_accuracy'])} points"
        f" against the teacher (validation {signed_points(difference['validation_accuracy'])}{spread_text(difference)})"
    )
    return Choice(best["name"], f"{reason}{_arithmetic(best)}.")


def spread_text(difference: Mapping[str, Any], split: str = "validation", before: str = ", ") -> str:
    """Return the interval of a difference in words; "" if the evaluation has none."""
    spread = difference.get(f"{split}_interval")
    if not spread:
        return ""
    return f"{before}95 % interval {signed_points(spread['low'])} to {signed_points(spread['high'])}"


def _undecided(teacher: Candidate, known: Sequence[Candidate], allowed: Sequence[Candidate]) -> str:
    """Return what the intervals add to the count of candidates within the bound; "" if all are known to be."""
    images = teacher["dataset"]["splits"].get("validation", 0)
    if not known:
        does = "it does" if len(allowed) == 1 else "any of them does"
        one = points(1 / max(images, 1))
        few = f"{images:,} validation images are too few to be sure that {does} (one image is {one} points)"
        return f", but {few}"
    if len(known) < len(allowed):
        return f", {len(known)} of them with the whole 95 % interval, to which the choice is limited"
    return ""


def _arithmetic(chosen: Candidate) -> str:
    """Return the reason for integer or float arithmetic; "" if nothing was measured."""
    arithmetic = chosen.get("arithmetic")
    if not arithmetic:
        return ""
    if arithmetic["integer_speedup"] is None:
        return f"; it computes in {_kind(arithmetic['chosen'])}: {arithmetic['reason']}"
    return f"; it computes in {_kind(arithmetic['chosen'])}, by measurement: {arithmetic['reason']}"


def _kind(chosen: str) -> str:
    return "int8" if chosen == "integer" else "fp32"


def _interval(candidate: Candidate) -> str:
    """Return the interval of the latency ratio at batch 1; "" if an older evaluation has none."""
    ratios = candidate.get("latency_ratio")
    if not ratios:
        return ""
    return f", 95 % interval {times(ratios['batch_1']['low'])} to {times(ratios['batch_1']['high'])}"


def _none_allowed(candidates: Sequence[Candidate], bound: str) -> str:
    nearest = max(candidates, key=lambda candidate: (candidate["validation_accuracy"], candidate["score"]))
    difference = nearest["difference"]
    none = f"None of {len(candidates)} candidates meets" if len(candidates) > 1 else "The only candidate does not meet"
    return (
        f"{none} the bound ({bound}): the nearest is {nearest['name']}, at"
        f" {signed_points(difference['validation_accuracy'])} points and {times(difference['bytes_ratio'])} smaller."
    )
