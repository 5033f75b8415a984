"""kd.search over Python functions."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kondense.api.interrupts import ctrl_c_noticed
from kondense.api.search import FailedTrialsError, choice, integers, log_uniform, search, uniform
from kondense.errors import InputError
from kondense.search import random_search
from kondense.search.journal import JournalError
from kondense.search.ledger import identity

SPACE = {"x": uniform(0, 1), "layers": integers(1, 4), "kind": choice(["a", "b"]), "batch": choice([16, 32])}


def objective(x: float, layers: int, kind: str, batch: int, epochs: int = 9) -> float:
    return -((x - 0.3) ** 2) - 0.1 * abs(layers - 2) - 0.2 * (kind == "b") - 0.1 * (batch == 32) - 1 / epochs


@pytest.mark.parametrize("algorithm", ["random", "tpe", "hyperband", "bohb"])
def test_each_algorithm_comes_near_the_best(algorithm: str) -> None:
    found = search(objective, SPACE, algorithm=algorithm, resource=("epochs", 9), max_trials=88)
    assert found.outcome == "succeeded"
    assert len(found.trials) == 88
    assert found.best is not None and found.best.value is not None
    assert found.best.resource == 9
    assert found.best.value > -1 / 9 - 0.25
    assert type(found.best.config["layers"]) is int and type(found.best.config["batch"]) is int


def test_a_grid_is_complete_by_default() -> None:
    space = {"x": uniform(0, 1, step=0.25), "kind": choice(["a", "b"])}
    seen: list[tuple[float, str]] = []
    found = search(lambda x, kind: seen.append((x, kind)) or x, space, algorithm="grid")
    assert len(set(seen)) == len(found.trials) == 10
    assert found.best is not None and found.best.config["x"] == 1.0


def test_the_default_algorithm_follows_the_resource() -> None:
    with_resource = search(lambda x, epochs: x, {"x": uniform(0, 1)}, resource=("epochs", 9))
    assert [trial.resource for trial in with_resource.trials].count(9) == 5  # one cycle of BOHB's brackets
    assert len(search(lambda x: x, {"x": uniform(0, 1)}).trials) == 50


def test_a_promoted_configuration_is_called_again_with_more() -> None:
    calls: list[tuple[float, int]] = []

    def train(x: float, epochs: int) -> float:
        calls.append((x, epochs))
        return x

    found = search(train, {"x": uniform(0, 1)}, algorithm="hyperband", resource=("epochs", 9))
    first = [x for x, epochs in calls if epochs == 1]
    assert len(first) == 9
    promoted = [x for x, epochs in calls if epochs == 3 and x in first]
    assert sorted(promoted) == sorted(first)[-3:]
    assert max(first) in [x for x, epochs in calls if epochs == 9]
    assert {identity(trial.name).rung for trial in found.trials} == {0, 1, 2}


@pytest.mark.parametrize("algorithm", ["random", "tpe", "hyperband", "bohb"])
def test_one_call_at_a_time_is_deterministic(algorithm: str) -> None:
    def configs(seed: int) -> list[tuple[Any, Any]]:
        found = search(objective, SPACE, algorithm=algorithm, resource=("epochs", 9), max_trials=25, seed=seed)
        return [(dict(trial.config), trial.resource) for trial in found.trials]

    assert configs(1) == configs(1) != configs(2)


def test_threads_call_side_by_side() -> None:
    barrier = threading.Barrier(3, timeout=60)

    def meet(x: float) -> float:
        barrier.wait()
        return x

    assert len(search(meet, {"x": uniform(0, 1)}, parallel=3, max_trials=6).trials) == 6


def test_the_goal() -> None:
    down = search(lambda x: x, {"x": uniform(0, 1)}, goal="minimize", max_trials=20)
    up = search(lambda x: x, {"x": uniform(0, 1)}, max_trials=20)
    assert down.best.value == min(trial.value for trial in down.trials)
    assert up.best.value == max(trial.value for trial in up.trials)


def test_an_objective_that_raises_fails_its_trial_only() -> None:
    def sometimes(x: float) -> float:
        if x > 0.8:
            raise MemoryError("no room")
        return x

    found = search(sometimes, {"x": uniform(0, 1)}, algorithm="random", max_trials=20, max_failed=20)
    failed = [trial for trial in found.trials if trial.status == "failed"]
    assert failed and {trial.reason for trial in failed} == {"MemoryError: no room"}
    assert found.best.value <= 0.8


def test_too_many_failures_end_with_the_objectives_error() -> None:
    def never(x: float) -> float:
        raise KeyError("layer")

    with pytest.raises(FailedTrialsError, match=r"3 trial\(s\) failed.*the last: KeyError: 'layer'") as caught:
        search(never, {"x": uniform(0, 1)})
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(caught.value.result.trials) == 3 and caught.value.result.best is None

    with pytest.raises(FailedTrialsError, match=r"all 2 trials failed; the last: KeyError: 'layer'") as caught:
        search(never, {"x": uniform(0, 1)}, max_trials=2)
    assert caught.value.result.outcome == "failed"


@pytest.mark.parametrize("returned", [None, "high", [1.0]])
def test_an_objective_that_returns_no_number_fails(returned: object) -> None:
    with pytest.raises(FailedTrialsError, match="the objective must return a number, but returned"):
        search(lambda x: returned, {"x": uniform(0, 1)}, max_failed=1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_none(value: float) -> None:
    found = search(lambda x: value if x > 0.5 else x, {"x": uniform(0, 1)}, algorithm="random", max_trials=20)
    missing = [trial for trial in found.trials if trial.value is None]
    assert missing and all("must be finite" in trial.reason for trial in missing)
    assert found.best.value <= 0.5


def test_ctrl_c_returns_the_finished_trials() -> None:
    calls = iter(range(100))

    def interrupted(x: float) -> float:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return x

    found = search(interrupted, {"x": uniform(0, 1)})
    assert (found.outcome, len(found.trials)) == ("interrupted", 5)
    assert found.best is not None


THREADS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
from kondense.api.search import search, uniform
def slow(x):
    time.sleep(0.05)
    sys.stdout.write("trial\\n")  # at once: print would let the other threads write before the end of the line
    sys.stdout.flush()
    return x
print("started", flush=True)
found = search(slow, {"x": uniform(0, 1)}, parallel=2, max_trials=100_000)
sys.stdout.write(f"{found.outcome} {len(found.trials) > 0} {signal.getsignal(signal.SIGINT).__name__}\\n")
"""


def test_ctrl_c_with_threads_returns_the_finished_trials() -> None:
    process = subprocess.Popen([sys.executable, "-c", THREADS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    for _ in range(6):  # two at a time: before the sixth is started, others have been recorded
        assert process.stdout.readline() == "trial\n"
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "interrupted True default_int_handler" in output.splitlines()
    assert process.returncode == 0


def test_ctrl_c_is_noticed_once_and_then_raised() -> None:
    """Raised anywhere, it left a lock of a future taken, for which its thread waited for ever."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ctrl_c_noticed() as pressed:
            assert not pressed()
            signal.raise_signal(signal.SIGINT)
            assert pressed()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with ctrl_c_noticed() as pressed:  # somebody else's
            signal.raise_signal(signal.SIGINT)
            assert not pressed()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_suggester_of_ones_own() -> None:
    own = SimpleNamespace(
        METHOD={"name": "mine", "kind": "single-fidelity", "summary": "random"},
        validate=random_search.validate,
        planned_trials=lambda settings, space: 7,
        suggest=random_search.suggest,
    )
    found = search(objective, SPACE, algorithm=own, resource=("epochs", 9))
    assert len(found.trials) == 7
    assert {trial.resource for trial in found.trials} == {9}


def test_a_suggester_that_returns_too_few_is_named() -> None:
    own = SimpleNamespace(
        validate=random_search.validate,
        planned_trials=random_search.planned_trials,
        suggest=lambda space, settings, seed, history, count: random_search.suggest(space, settings, seed, history, 0),
    )
    with pytest.raises(InputError, match="suggester SimpleNamespace must return exactly 1 trials with new names"):
        search(objective, SPACE, algorithm=own)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no space": ({"space": {}}, "space must map at least one parameter to its domain, but got {}"),
    "no domain": ({"space": {"x": (0, 1)}}, r"x must be kd.uniform, .* or kd.choice, but got \(0, 1\)"),
    "no number": ({"space": {"x": uniform("a", 1)}}, "x must have numbers as bounds and step, but got 'a'"),
    "journal in a directory": ({"journal": "/"}, "/ must be a file, or not exist yet, but is a directory"),
    "no parameter": ({"objective": lambda lr: lr}, "objective must take x as keyword arguments, but: .*'lr'"),
    "no resource in the objective": (
        {"objective": lambda x: x, "resource": ("epochs", 9)},
        "objective must take x, epochs as keyword arguments, but: got an unexpected keyword argument 'epochs'",
    ),
    "no function": ({"objective": 3}, "objective must be a function of x, but got 3"),
    "no name": ({"space": {"l r": uniform(0, 1)}}, "names of keyword arguments, but got 'l r'"),
    "empty range": ({"space": {"x": uniform(1, 0)}}, "'x': min must not be above max, but got min=1, max=0"),
    "logarithm of 0": ({"space": {"x": log_uniform(0, 1)}}, "'x': min must be above 0 .*, but got 0"),
    "no values": ({"space": {"x": choice([])}}, "'x': a discrete parameter needs a non-empty list"),
    "values twice": ({"space": {"x": choice(["a", "a"])}}, "'a' occurs twice"),
    "algorithm": (
        {"algorithm": "annealing"},
        "algorithm must be one of bayesian.*, bohb, .*, but got 'annealing'",
    ),
    "no suggester": ({"algorithm": object()}, "must have the functions of a Suggester, but .* has no validate"),
    "no resource": ({"algorithm": "bohb"}, r"bohb needs a resource, such as resource=\('epochs', 27\), but got None"),
    "resource": ({"resource": "epochs"}, "resource must be a name and an integer of at least 1, but got 'epochs'"),
    "resource 0": ({"resource": ("epochs", 0)}, r"integer of at least 1, but got \('epochs', 0\)"),
    "resource in the space": ({"resource": ("x", 9)}, "resource must not be a parameter of the space, but 'x' is"),
    "parallel": ({"parallel": 0}, "parallel must be an integer of at least 1, but got 0"),
    "max_trials": ({"max_trials": 2.5}, "max_trials must be an integer of at least 1, but got 2.5"),
    "goal": ({"goal": "best"}, "goal must be minimize or maximize, but got 'best'"),
    "setting": ({"settings": {"etta": 3}}, "unknown setting 'etta'; the settings are"),
    "eta": ({"resource": ("epochs", 9), "settings": {"eta": 1}}, "eta must be a whole number of at least 2"),
    "infinite grid": ({"algorithm": "grid"}, "'x': grid needs a step for a double parameter"),
    "large grid": (
        {"algorithm": "grid", "space": {"x": choice([1, 2])}, "max_trials": 3},
        "at most the grid's 2 configurations, but got 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named_before_any_call(case: str) -> None:
    changes, rule = WRONG[case]
    called: list[Any] = []
    with pytest.raises(InputError, match=rule):
        search(**{"objective": lambda **given: called.append(given), "space": {"x": uniform(0, 1)}, **changes})
    assert not called


KILLED = """
import os, sys
from kondense.api.search import search, uniform
calls = []
def train(x, epochs):
    calls.append(x)
    if len(calls) == 8:
        os._exit(9)
    return x
search(train, {"x": uniform(0, 1)}, resource=("epochs", 9), journal=sys.argv[1])
"""


def test_a_journal_continues_a_killed_search(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == 9
    calls: list[float] = []

    def train(x: float, epochs: int) -> float:
        calls.append(x)
        return x

    space = {"x": uniform(0, 1)}
    found = search(train, space, resource=("epochs", 9), journal=path)
    assert len(calls) == len(found.trials) - 7
    other = search(train, space, resource=("epochs", 9))
    assert [trial.name for trial in found.trials] == [trial.name for trial in other.trials]
    assert search(train, space, resource=("epochs", 9), journal=path).best == found.best
    with pytest.raises(JournalError, match="must belong to this search"):
        search(train, space, resource=("epochs", 9), journal=path, seed=1)


def test_the_result_shows_itself() -> None:
    def sometimes(x: float, kind: str, epochs: int) -> float:
        if x > 0.9:
            raise ValueError("<b>too large</b>")
        return x

    space = {"x": uniform(0, 1), "kind": choice(["<i>", "b"])}
    found = search(sometimes, space, algorithm="random", resource=("epochs", 9), max_trials=30, max_failed=30)
    text = found._repr_html_()
    assert text.count("<tr>") == 11 and "<svg" in text and "best value so far" in text
    assert "&lt;i&gt;" in text and "<i>" not in text and "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert str(found).startswith("succeeded: all 30 trials have ended; 30 trials\nbest value 0.")
    assert " at resource 9\n  x = 0." in str(found)
    assert found.rows[0].keys() == {"x", "kind", "name", "resource", "value", "status", "reason", "seconds"}
    json.dumps(found.rows)
    curve = [value for value in found.incumbents() if not math.isnan(value)]
    assert curve == sorted(curve) and curve[-1] == found.best.value


def test_a_result_without_a_value_shows_itself() -> None:
    found = search(lambda x: math.nan, {"x": uniform(0, 1)}, max_trials=2)
    assert found.best is None and "no trial has a value" in str(found)
    assert "<svg" not in found._repr_html_() and "<table>" in found._repr_html_()


def test_importing_it_needs_numpy_alone() -> None:
    code = "import sys, kondense.api.search\nprint({'torch', 'scipy', 'grpc', 'yaml'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert run.stdout.strip() == "set()"


def test_several_goals_have_a_front_and_a_rule_picks_from_it():
    def objective(x, y):
        if x > 0.9:
            raise RuntimeError("broken")
        return {"gain": x, "cost": x + y if y < 0.9 else math.nan, "y": y}

    goals = {"gain": "maximize", "cost": "minimize"}
    space = {"x": uniform(0, 1), "y": uniform(0, 1)}
    result = search(objective, space, goal=goals, constraints="y >= 0.2", max_trials=40, max_failed=40)
    kept = [t for t in result.trials if t.metrics.get("y", 0) >= 0.2 and "cost" in t.metrics]
    pairs = {trial.name: (-trial.metrics["gain"], trial.metrics["cost"]) for trial in kept}
    front = {n for n, (a, b) in pairs.items() if not any(c <= a and d <= b for m, (c, d) in pairs.items() if m != n)}
    assert {trial.name for trial in result.front} == front
    assert result.best == result.front[0] == max(kept, key=lambda t: t.value)
    silent = [trial for trial in result.trials if "nan" in trial.reason]
    assert silent and all("cost must be finite, but is nan" in trial.reason for trial in silent)
    assert result.pick("gain >= 0.5, min cost") == min(
        (t for t in result.front if t.value >= 0.5), key=lambda t: t.metrics["cost"]
    )
    assert "front of" in str(result)
    assert {"gain", "cost", "y"} <= set(result.rows[0])


@pytest.mark.parametrize(
    ("goal", "constraints", "rule"),
    [
        ({}, "", "goal must name at least one objective"),
        ({"a b": "minimize"}, "", "goal must have names without blanks, .* but got 'a b'"),
        ({"a": "most"}, "", "goal must be minimize or maximize, but got 'most'"),
        ("minimize", "size < 5", "setting constraints must be METRIC <= NUMBER"),
    ],
)
def test_goals_that_break_a_rule_are_refused(goal, constraints, rule):
    with pytest.raises(ValueError, match=rule):
        search(lambda x: x, {"x": uniform(0, 1)}, goal=goal, constraints=constraints)


@pytest.mark.parametrize("returned", [0.5, {"a": 0.5}, {"a": 0.5, "b": "many"}])
def test_an_objective_that_returns_no_number_by_a_name_fails_its_trial(returned):
    with pytest.raises(FailedTrialsError, match="the objective must return"):
        search(lambda x: returned, {"x": uniform(0, 1)}, goal={"a": "minimize", "b": "minimize"}, max_failed=1)
