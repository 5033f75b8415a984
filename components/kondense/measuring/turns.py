"""Time several models alternately, after a warm-up that ends when their times stop drifting.

Models whose turns are long, such as those of large images in large batches, are timed in fewer turns: a run of seconds
averages over what makes short ones noisy.

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
# Of 5 runs, the range holds the median 94 times of 100.
PATIENCE = 10  # times the seconds asked for, after which half of the least number of runs will do


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
        warmup_seconds: longest warm-up; it has at least two windows. Turns of which so many seconds hold fewer than
            WINDOW_RUNS make shorter windows, the last of which is counted, since only first turns of such are slow.
        min_runs: least number of runs per model; half of them where all take more than PATIENCE times the seconds.
        clock: returns the time in nanoseconds.
    """
    order = list(runs)
    warmup_turns, settled, samples_ns = _warm_up(runs, order, round(warmup_seconds * 1e9), clock)
    began, patience_ns = clock(), round(PATIENCE * (seconds + warmup_seconds) * 1e9)
    while True:
        passed_ns = clock() - began
        enough = min_runs if passed_ns < patience_ns else (min_runs + 1) // 2
        if passed_ns >= round(seconds * 1e9) and len(samples_ns[order[0]]) >= enough:
            return Turns({name: np.array(samples_ns[name]) / 1e6 for name in runs}, warmup_turns, settled)
        _turn(runs, order, samples_ns, clock)


def _warm_up(
    runs: Mapping[str, Callable[[], object]], order: list[str], longest_ns: int, clock: Callable[[], int]
) -> tuple[int, bool, dict[str, list[int]]]:
    """Return the number of turns, whether the times settled, and the samples to count: of a short window, else none."""
    until, turns = clock() + longest_ns, 0
    before: dict[str, float] = {}
    while True:
        samples_ns = _window(runs, order, longest_ns, clock)
        medians = {name: float(np.median(samples)) for name, samples in samples_ns.items()}
        settled = bool(before) and all(abs(medians[name] - before[name]) <= DRIFT * before[name] for name in order)
        count = len(samples_ns[order[0]])
        if settled or (before and clock() >= until):
            if count < WINDOW_RUNS:
                return turns, settled, samples_ns
            return turns + count, settled, {name: [] for name in order}
        before, turns = medians, turns + count


def _window(
    runs: Mapping[str, Callable[[], object]], order: list[str], longest_ns: int, clock: Callable[[], int]
) -> dict[str, list[int]]:
    samples_ns: dict[str, list[int]] = {name: [] for name in order}
    began = clock()
    while True:
        _turn(runs, order, samples_ns, clock)
        passed_ns = clock() - began
        if passed_ns >= longest_ns or (passed_ns >= WINDOW_SECONDS * 1e9 and len(samples_ns[order[0]]) >= WINDOW_RUNS):
            return samples_ns


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
