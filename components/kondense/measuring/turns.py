"""Time several models alternately, after a warm-up that ends when their times stop drifting.

Shapes: samples [T], one per turn.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

WINDOW_RUNS = 5  # least number of turns of a warm-up window
WINDOW_SECONDS = 0.02
DRIFT = 0.05  # largest relative difference of the medians of two successive windows without drift


@dataclasses.dataclass(frozen=True)
class Turns:
    """A measurement.

    Attributes:
        samples_ms: the times of every model, [T] each, in order.
        warmup_turns: number of warm-up turns before them.
        settled: whether the times stopped drifting before the end of the warm-up.
    """

    samples_ms: Mapping[str, NDArray[np.float64]]
    warmup_turns: int
    settled: bool


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    warmup_seconds: float = 0.5,
    min_runs: int = 10,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Turns:
    """Run every model once per turn, turn after turn.

    Turns alternate in direction (A B, B A, ...), so that neither a drift of the clock rate nor the cache contents
    favour one of them.

    Args:
        runs: runs each model once, by name.
        seconds: measuring time of all models together; longer if ``min_runs`` requires it.
        warmup_seconds: longest warm-up; it has at least two windows.
        min_runs: least number of runs per model.
        clock: returns the time in nanoseconds.
    """
    order = list(runs)
    warmup_turns, settled = _warm_up(runs, order, warmup_seconds, clock)
    samples_ns: dict[str, list[int]] = {name: [] for name in order}
    until = clock() + round(seconds * 1e9)
    while clock() < until or len(samples_ns[order[0]]) < min_runs:
        _turn(runs, order, samples_ns, clock)
    return Turns({name: np.array(samples_ns[name]) / 1e6 for name in runs}, warmup_turns, settled)


def _warm_up(
    runs: Mapping[str, Callable[[], object]], order: list[str], seconds: float, clock: Callable[[], int]
) -> tuple[int, bool]:
    until, turns = clock() + round(seconds * 1e9), 0
    before: dict[str, float] = {}
    while True:
        samples_ns: dict[str, list[int]] = {name: [] for name in order}
        window_until = clock() + round(WINDOW_SECONDS * 1e9)
        while clock() < window_until or len(samples_ns[order[0]]) < WINDOW_RUNS:
            _turn(runs, order, samples_ns, clock)
            turns += 1
        medians = {name: float(np.median(samples)) for name, samples in samples_ns.items()}
        if before and all(abs(medians[name] - before[name]) <= DRIFT * before[name] for name in order):
            return turns, True
        if before and clock() >= until:
            return turns, False
        before = medians


def _turn(
    runs: Mapping[str, Callable[[], object]],
    order: list[str],
    samples_ns: Mapping[str, list[int]],
    clock: Callable[[], int],
) -> None:
    for name in order:
        started = clock()
        runs[name]()
        samples_ns[name].append(clock() - started)
    order.reverse()
