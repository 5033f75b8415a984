"""Time several models in turns, after a warm-up that ends when their times stop drifting.

Shapes: samples [T], one per turn.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

WINDOW_RUNS = 5  # turns of a window of the warm-up, at least
WINDOW_SECONDS = 0.02
DRIFT = 0.05  # medians of two neighbouring windows that differ by less are level


@dataclasses.dataclass(frozen=True)
class Turns:
    """What was measured.

    Attributes:
        samples_ms: the times of every model, [T] each, in the order they were taken.
        warmup_turns: turns before them that do not count.
        settled: whether the times stopped drifting before the warm-up's time was over.
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

    Turns alternate in direction (A B, B A, ...), so that neither a drift of the clock rate nor the cache
    that the model before leaves behind favours one of them.

    Args:
        runs: what one run of each model is, by name.
        seconds: how long to measure, all models together; more when ``min_runs`` need it.
        warmup_seconds: how long the warm-up may last at most; it has two windows at least.
        min_runs: least number of runs of each model.
        clock: the time in nanoseconds.
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
