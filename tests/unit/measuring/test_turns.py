"""The order and the number of runs, on a clock that the test turns."""

from collections.abc import Callable, Iterator

import numpy as np
from kondense.measuring.turns import WINDOW_RUNS, Turns, time_in_turns


class Clock:
    """Nanoseconds that pass only while a model runs."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def __call__(self) -> int:
        return self.now

    def model(self, name: str, times_ms: Iterator[float]) -> Callable[[], object]:
        def run() -> None:
            self.log.append(name)
            self.now += round(next(times_ms) * 1e6)

        return run


def constant(value: float) -> Iterator[float]:
    while True:
        yield value


def falling(start: float, factor: float, end: float) -> Iterator[float]:
    while True:
        yield start
        start = max(start * factor, end)


def timed(clock: Clock, models: dict[str, Iterator[float]], **options: float) -> Turns:
    runs = {name: clock.model(name, times) for name, times in models.items()}
    return time_in_turns(runs, clock=clock, **options)


def test_models_take_turns_in_alternating_order() -> None:
    clock = Clock()
    turns = timed(clock, {"A": constant(10), "B": constant(5)}, seconds=1e-9, min_runs=4)
    counted = clock.log[2 * turns.warmup_turns :]
    assert counted[:4] in (list("ABBA"), list("BAAB"))
    assert "".join(counted).count("A") == "".join(counted).count("B") == 4
    assert turns.samples_ms["A"].tolist() == [10.0] * 4
    assert turns.samples_ms["B"].tolist() == [5.0] * 4


def test_level_times_need_two_windows_of_warm_up() -> None:
    turns = timed(Clock(), {"A": constant(10)}, seconds=0.1)
    assert turns.warmup_turns == 2 * WINDOW_RUNS
    assert turns.settled


def test_the_warm_up_ends_when_times_stop_falling_not_after_a_fixed_number() -> None:
    # 40 ms, falling by a twentieth per run to 10 ms: level after 27 runs.
    turns = timed(Clock(), {"A": constant(10), "B": falling(40, 0.95, 10)}, seconds=0.5, warmup_seconds=100)
    assert turns.settled
    assert 27 <= turns.warmup_turns <= 27 + 3 * WINDOW_RUNS
    assert np.ptp(turns.samples_ms["B"]) == 0


def test_times_that_never_settle_are_said_to() -> None:
    turns = timed(Clock(), {"A": falling(1000, 0.9, 0.0)}, seconds=0.1, warmup_seconds=1.0)
    assert not turns.settled


def test_measuring_takes_the_time_it_is_given() -> None:
    turns = timed(Clock(), {"A": constant(10), "B": constant(15)}, seconds=2.0)
    assert len(turns.samples_ms["A"]) == len(turns.samples_ms["B"]) == 80


def test_long_turns_need_one_turn_of_warm_up_and_half_of_the_runs() -> None:
    clock = Clock()
    turns = timed(clock, {"A": constant(4000), "B": constant(2000)}, seconds=1.0, warmup_seconds=0.5, min_runs=10)
    assert (turns.warmup_turns, turns.settled) == (1, True)
    assert turns.samples_ms["A"].tolist() == [4000.0] * 5
    assert "".join(clock.log).count("A") == 6
    assert clock.log[-10:] in (list("ABBA" * 3)[:10], list("BAAB" * 3)[:10])


def test_a_long_first_turn_is_not_counted_and_said_to_drift() -> None:
    turns = timed(Clock(), {"A": falling(9000, 1 / 3, 3000)}, seconds=1.0, warmup_seconds=0.5)
    assert (turns.warmup_turns, turns.settled) == (1, False)
    assert set(turns.samples_ms["A"]) == {3000.0}


def test_turns_of_middle_length_get_all_runs_within_the_patience() -> None:
    turns = timed(Clock(), {"A": constant(300)}, seconds=1.0, warmup_seconds=0.5, min_runs=10)
    assert len(turns.samples_ms["A"]) == 10
    assert turns.warmup_turns == 2  # a window of 0.5 s
