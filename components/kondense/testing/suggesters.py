"""The conformance suite of suggesters, with requests as Katib's controller sends them."""

import itertools
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from kondense.search.goals import Goals, read_goals
from kondense.search.history import Goal, History, Proposal, Status, Trial
from kondense.search.ledger import SETTING, identity
from kondense.search.parameter import Parameter
from kondense.search.space import SearchSpace
from kondense.search.suggesters import MULTI_FIDELITY, Suggester

SPACE = SearchSpace(
    (
        Parameter("lr", "double", 1e-4, 0.1, distribution="logUniform"),
        Parameter("width", "int", 8, 64, step=8),
        Parameter("optimizer", "categorical", values=("sgd", "adam", "lion")),
        Parameter("epochs", "int", 1, 9),
    )
)
RESOURCE = {"resource_name": "epochs"}
EXPERIMENT = "an-experiment-with-a-name-of-40-letters-"  # the longest name of an Experiment
TRIALS = 40
PARALLEL = (1, 4, 9)

Result = Callable[[Proposal, np.random.Generator], tuple[Any, ...]]
"""Returns status, value and, optionally, the other metrics of a trial."""


def successes(proposal: Proposal, rng: np.random.Generator) -> tuple[Status, float | None]:
    """Return a value that depends on the configuration, with noise."""
    return Status.SUCCEEDED, zlib.crc32(repr(sorted(proposal.assignments.items())).encode()) / 2**32 + rng.random() / 9


def failures(proposal: Proposal, rng: np.random.Generator) -> tuple[Status, float | None]:
    """Return a failure of any kind for a third of the trials."""
    results = [
        (Status.FAILED, None),
        (Status.KILLED, None),
        (Status.METRICS_UNAVAILABLE, None),
        (Status.EARLY_STOPPED, rng.random()),
        (Status.EARLY_STOPPED, None),
        (Status.SUCCEEDED, float("nan")),
        (Status.SUCCEEDED, None),
    ]
    return results[rng.integers(len(results))] if rng.random() < 0.35 else successes(proposal, rng)


def run_experiment(
    suggester: Suggester,
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    parallel: int,
    total: int,
    result: Result = successes,
    goal: Goal = "minimize",
    announced: bool = True,
    experiment: str = "e",
) -> list[Trial]:
    """Return the trials of an experiment, in order of ending.

    They end in random order, those without metrics are never reported again, and every request is sent twice.

    Args:
        suggester: the suggester.
        space: the space.
        settings: of the algorithm.
        parallel: trials at a time.
        total: number of trials.
        result: returns the result of a proposal.
        goal: direction of the objective.
        announced: whether the suggester knows `total`.
        experiment: name of the experiment.

    Raises:
        AssertionError: a reply has another number of proposals, or differs from the first reply to the same request.
    """
    rng = np.random.default_rng(0)
    goals = read_goals(settings, "value", goal)
    running: dict[str, Proposal] = {}
    ended: list[Trial] = []
    issued = ""
    while len(running) + len(ended) < total or running:
        count = min(parallel - len(running), total - len(running) - len(ended))
        if count:
            waiting = [Trial(p.name, p.assignments, Status.RUNNING) for p in running.values()]
            reported = [trial for trial in ended if trial.status != Status.METRICS_UNAVAILABLE] + waiting
            reported = [reported[index] for index in rng.permutation(len(reported))]
            foreign = Trial("other-b0r0c0-123456", {"lr": "1"}, Status.SUCCEEDED, -1e9)
            known = total if announced else None
            history = History((*reported, foreign), issued, goal, experiment, known, goals)
            suggestion = suggester.suggest(space, settings, 1, history, count)
            again = suggester.suggest(space, settings, 1, history, count)
            assert suggestion == again, (
                f"suggest must be a function of its arguments, but returned {again} the 2nd time"
            )
            returned = len(suggestion.proposals)
            assert returned == count, f"suggest must return exactly {count} proposals, but returned {returned}"
            issued = suggestion.settings[SETTING]
            running |= {proposal.name: proposal for proposal in suggestion.proposals}
        for name in rng.permutation(sorted(running))[: rng.integers(1, len(running) + 1)]:
            proposal = running.pop(name)
            status, value, *given = result(proposal, rng)
            metrics = given[0] if given else _metrics(goals, proposal, value) if goals else {}
            ended.append(Trial(name, proposal.assignments, status, value, metrics))
    return ended


def _metrics(goals: Goals, proposal: Proposal, value: float | None) -> dict[str, float]:
    """Return values of the metrics besides the objective; a tenth of them are missing."""
    shares = {metric: zlib.crc32(f"{metric} {proposal.name} {value}".encode()) / 2**32 for metric in goals.metrics[1:]}
    return {metric: share for metric, share in shares.items() if share < 0.9}


def check_suggester(
    suggester: Suggester,
    *,
    space: SearchSpace = SPACE,
    settings: Mapping[str, str] | None = None,
    trials: int = TRIALS,
) -> None:
    """Check that a suggester works with Katib's controller, in local runs and in `kd.search`.

    Args:
        suggester: a module or an object.
        space: a space that it can search; with a resource `epochs` by default.
        settings: of the algorithm; with `resource_name` for a multi-fidelity suggester by default.
        trials: number of trials in each experiment.

    Raises:
        AssertionError: a rule is broken; the text names it.
    """
    method = suggester.METHOD
    missing = {"name", "kind", "summary"} - set(method)
    assert not missing, f"METHOD must have name, kind and summary, but lacks {', '.join(sorted(missing))}"
    if settings is None:
        settings = RESOURCE if method["kind"] == MULTI_FIDELITY else {}
    suggester.validate(space, settings, max_trial_count=trials, parallel_trial_count=4)
    _check_rejection(suggester, space, settings)
    planned = suggester.planned_trials(settings, space)
    assert planned is None or planned > 0, f"planned_trials must be None or at least 1, but is {planned}"
    for parallel, result, announced in itertools.product(PARALLEL, (successes, failures), (True, False)):
        ended = run_experiment(
            suggester,
            space,
            settings,
            parallel=parallel,
            total=trials,
            result=result,
            announced=announced,
            experiment=EXPERIMENT,
        )
        _check_trials(space, ended, repeats=bool(method.get("repeats")))
    if isinstance(suggester, ModuleType):
        _check_other_process(suggester, space, settings)


def _check_rejection(suggester: Suggester, space: SearchSpace, settings: Mapping[str, str]) -> None:
    unknown = {**settings, "no_such_setting": "1"}
    try:
        suggester.validate(space, unknown, max_trial_count=TRIALS)
    except ValueError as error:
        assert "\n" not in str(error), f"an error must be one line, but is {str(error)!r}"
        return
    raise AssertionError("validate must raise a ValueError for an unknown setting, but accepted no_such_setting")


def _check_trials(space: SearchSpace, trials: list[Trial], *, repeats: bool) -> None:
    names = {trial.name for trial in trials}
    assert len(names) == len(trials), "the names of the trials must be unique"
    seen: dict[tuple[object, ...], str] = {}
    for trial in trials:
        issued = identity(trial.name)
        assert issued, f"a name must be issued by ExperimentState, but is {trial.name!r}"
        assert len(trial.name) <= 63, f"a name must have at most 63 characters, but is {trial.name!r}"
        names_given = sorted(trial.assignments)
        assert names_given == sorted(space.names), f"a trial must assign every parameter, but assigns {names_given}"
        space.to_unit([trial.assignments])  # raises a ValueError for a value outside of the space
        key = (issued.bracket if repeats else 0, *sorted(trial.assignments.items()))
        assert key not in seen, f"a configuration must not repeat, but {trial.name} and {seen[key]} have the same"
        seen[key] = trial.name


def _check_other_process(suggester: ModuleType, space: SearchSpace, settings: Mapping[str, str]) -> None:
    """Check that a process with other hashes makes the same proposals."""
    code = (
        "import importlib\n"
        "from kondense.search.space import Parameter, SearchSpace\n"
        "from kondense.testing.suggesters import run_experiment\n"
        f"module = importlib.import_module({suggester.__name__!r})\n"
        f"print(run_experiment(module, {space!r}, {dict(settings)!r}, parallel=4, total={TRIALS}))"
    )
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path)
    same = repr(run_experiment(suggester, space, settings, parallel=4, total=TRIALS))
    assert other.stdout.strip() == same, "another process must make the same proposals"
