"""Hyperparameter search over a Python function."""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from numbers import Real
from pathlib import Path
from typing import Any

from kondense.api.domains import Domain, choice, integers, log_uniform, uniform
from kondense.api.interrupts import ctrl_c_noticed
from kondense.api.objective import Evaluation, evaluate
from kondense.api.search_result import SearchResult, Trial
from kondense.errors import InputError, KondenseError
from kondense.files import check_file
from kondense.search.conditions import read_conditions
from kondense.search.goals import CONSTRAINTS, NAME, OBJECTIVES, Goals
from kondense.search.history import Goal, Status
from kondense.search.journal import Journal
from kondense.search.parameter import Parameter
from kondense.search.run import Outcome, Run, Search, TrialRecord
from kondense.search.space import SearchSpace
from kondense.search.suggesters import MULTI_FIDELITY, Suggester, load_suggester

__all__ = ["Domain", "SearchResult", "Trial", "choice", "integers", "log_uniform", "search", "uniform"]

DEFAULT_TRIALS = 50  # of a search without a natural number of trials
INTERRUPTED = Outcome.INTERRUPTED, "stopped by Ctrl-C"
MOMENT_S = 0.1  # after which Ctrl-C is looked for
METRIC = "value"  # name of what an objective of one goal returns


class FailedTrialsError(KondenseError):
    """So many trials failed that the search ended; `result` has the finished ones, the cause is the last error."""

    def __init__(self, message: str, result: SearchResult) -> None:
        super().__init__(message)
        self.result = result


def search(
    objective: Callable[..., float | Mapping[str, float]],
    space: Mapping[str, Domain],
    *,
    algorithm: str | Suggester | None = None,
    resource: tuple[str, int] | None = None,
    parallel: int = 1,
    max_trials: int | None = None,
    max_failed: int = 3,
    goal: Goal | Mapping[str, Goal] = "maximize",
    constraints: str = "",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    journal: str | Path | None = None,
) -> SearchResult:
    """Search the configuration with the best value of a function.

    Args:
        objective: called with the parameters as keyword arguments; returns a number, or numbers by name with several
            goals or constraints. An exception fails the trial.
        space: the domain of each parameter: `uniform`, `log_uniform`, `integers` or `choice`.
        algorithm: `random`, `grid`, `tpe`, `hyperband`, `bohb`, the name of an installed suggester, or an object with
            the functions of `kondense.search.suggesters.Suggester`. Default: bohb with a resource, else tpe.
        resource: name and maximum of a further keyword argument, such as `("epochs", 27)`. Hyperband and BOHB call the
            objective with little of it first, and again with more for the promising configurations, so it pays to
            continue from a checkpoint; the other algorithms always use the maximum.
        parallel: calls at a time, in threads: PyTorch and NumPy release the interpreter lock, pure Python does not.
            With 1 the objective runs in the calling thread, and the same arguments give the same trials.
        max_trials: number of trials. Default: one cycle of the brackets with a resource, all configurations of a finite
            space, else 50.
        max_failed: number of failed trials that ends the search.
        goal: `maximize` or `minimize`; for several objectives by their names, `{"accuracy": "maximize", "size":
            "minimize"}`, with the algorithms random, grid, sobol, tpe, hyperband and bohb.
        constraints: bounds of numbers that the objective returns, such as `size <= 50000, latency <= 2`.
        seed: of the suggester.
        settings: of the algorithm, such as `{"eta": 4}`.
        journal: file to which the trials are written; the same call continues from it after a kill.

    Returns:
        The trials. Ctrl-C ends the search early, with the outcome `interrupted`; calls in threads run to their end,
        but do not count any more.

    Raises:
        ValueError: an argument breaks a rule; the text gives the rule and the value.
        FailedTrialsError: `max_failed` trials failed, or all; its `result` has the finished trials.

    >>> def objective(lr, layers):
    ...     return -((lr - 0.03) ** 2) - 0.01 * abs(layers - 3)
    >>> space = {"lr": log_uniform(1e-3, 1e-1), "layers": integers(1, 8)}
    >>> best = search(objective, space, algorithm="tpe", max_trials=40).best
    >>> best.config["layers"], 0.01 < best.config["lr"] < 0.06
    (3, True)

    With a resource, few configurations are evaluated at all of it:

    >>> def train(lr, epochs):
    ...     return 1 - 1 / epochs - abs(lr - 0.5)
    >>> result = search(train, {"lr": uniform(0, 1)}, algorithm="hyperband", resource=("epochs", 9))
    >>> result.best.resource, [trial.resource for trial in result.trials].count(1)
    (9, 9)

    Several goals have a front:

    >>> def compress(width):
    ...     return {"accuracy": 1 - 1 / width, "size": width}
    >>> result = search(compress, {"width": integers(1, 9)}, goal={"accuracy": "maximize", "size": "minimize"})
    >>> len(result.front), result.pick("accuracy >= 0.7, min size").config
    (9, {'width': 4})
    """
    _check(space, resource, {"parallel": parallel, "max_trials": max_trials, "max_failed": max_failed})
    _check_objective(objective, [*space, *(resource or ())[:1]])
    if journal:
        check_file(Path(journal))
    goals = dict(goal) if isinstance(goal, Mapping) else {METRIC: goal}
    metric, own = _check_goals(goals)
    named = [f"{goals[name]} {name}" for name in goals if name != metric]
    texts = {OBJECTIVES: ", ".join(named), CONSTRAINTS: constraints}
    settings = dict(settings or {}) | {name: text for name, text in texts.items() if text}
    fields = {
        "metric": metric,
        "goal": own,
        "seed": seed,
        "parallel": parallel,
        "max_trials": max_trials,
        "max_failed": max_failed,
    }
    definition = _define(space, algorithm, resource, settings, fields)
    task = _Task(objective, space, resource, definition.goals)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(Journal(Path(journal), experiment=_digest(definition))) if journal else None
        return task.run(Run(definition, opened), parallel)


def _define(
    space: Mapping[str, Domain],
    algorithm: str | Suggester | None,
    resource: tuple[str, int] | None,
    settings: Mapping[str, Any],
    fields: Mapping[str, Any],
) -> Search:
    """Return the search; a ValueError gives the broken rule and the value."""
    name, suggester, multi_fidelity = _suggester(algorithm or ("bohb" if resource else "tpe"))
    parameters = [domain.parameter(key) for key, domain in space.items()]
    texts = {key: str(value) for key, value in settings.items()}
    if multi_fidelity:
        if resource is None:
            raise InputError(f"{name} needs a resource, such as resource=('epochs', 27), but got None.")
        parameters.append(Parameter(resource[0], "int", 1, resource[1]))
        texts = {"resource_name": resource[0], **texts}
    searched = SearchSpace(tuple(parameters), read_conditions(texts, parameters))
    max_trials = fields["max_trials"] or suggester.planned_trials(texts, searched) or DEFAULT_TRIALS
    definition = Search("search", name, suggester, searched, texts, **{**fields, "max_trials": max_trials})
    definition.validate()
    definition.history()  # checks the goal
    return definition


def _digest(search: Search) -> str:
    """Return a digest of everything that calls with the same journal must have in common."""
    common = [search.algorithm, repr(search.space), dict(search.settings), search.goal, search.seed]
    return hashlib.sha256(json.dumps(common, sort_keys=True).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class _Task:
    """Evaluates the objective, and translates between a suggester's strings and Python values."""

    objective: Callable[..., float | Mapping[str, float]]
    domains: Mapping[str, Domain]
    resource: tuple[str, int] | None
    goals: Goals | None = None

    def run(self, run: Run, parallel: int) -> SearchResult:
        """Evaluate trials until the search ends."""
        pool = _Immediate() if parallel == 1 else ThreadPoolExecutor(parallel)
        running: dict[Future[Evaluation], str] = {}
        error: Exception | None = None
        try:
            with _immediate() if parallel == 1 else ctrl_c_noticed() as pressed:
                while (state := run.outcome())[0] is Outcome.RUNNING and not pressed():
                    for trial in run.startable(parallel):
                        run.record("started", name=trial.name)
                        running[pool.submit(evaluate, self.objective, self.arguments(trial), self.goals)] = trial.name
                    error = _ended(run, running) or error
            if state[0] is Outcome.RUNNING:
                state = INTERRUPTED
        except KeyboardInterrupt:
            state = INTERRUPTED
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        failed = [trial for trial in run.finished if trial.status is Status.FAILED]
        if state[0] is Outcome.SUCCEEDED and failed and len(failed) == len(run.finished):
            state = Outcome.FAILED, f"all {len(failed)} trials failed"
        result = self.result(run, *state)
        if state[0] is Outcome.FAILED:
            raise FailedTrialsError(f"{state[1]}; the last: {failed[-1].reason}", result) from error
        return result

    def arguments(self, trial: TrialRecord) -> dict[str, Any]:
        """Return the objective's keyword arguments."""
        arguments = {name: domain.value(trial.assignments[name]) for name, domain in self.domains.items()}
        if self.resource:
            name, maximum = self.resource
            arguments[name] = int(trial.assignments.get(name, maximum))
        return arguments

    def result(self, run: Run, outcome: Outcome, reason: str) -> SearchResult:
        """Return the finished trials."""
        trials = {record.name: self.trial(record) for record in run.finished}
        best = run.best()
        chosen = trials[best.name] if best else None
        front = tuple(trials[record.name] for record in run.search.front(run.finished))
        return SearchResult(tuple(trials.values()), chosen, outcome.lower(), reason, run.search.goal, front)

    def trial(self, record: TrialRecord) -> Trial:
        """Return a finished trial with Python values."""
        config = self.arguments(record)
        resource = config.pop(self.resource[0]) if self.resource else None
        seconds = record.seconds or 0.0
        metrics = {name: float(text) for name, text in record.metrics.items() if math.isfinite(float(text))}
        return Trial(record.name, config, resource, record.value, record.status.value, record.reason, seconds, metrics)


def _ended(run: Run, running: dict[Future[Evaluation], str]) -> Exception | None:
    """Record the trials that have ended, after a moment at most, and return the last error of one."""
    ended = wait(running, MOMENT_S, return_when=FIRST_COMPLETED).done
    error = None
    for future in [future for future in running if future in ended]:  # in order of their start
        done = future.result()
        fields = {"value": done.value, "reason": done.reason, "metrics": done.metrics}
        status = Status.FAILED if done.error else Status.SUCCEEDED
        run.record("finished", name=running.pop(future), status=status, **fields)
        error = done.error or error
    return error


@contextlib.contextmanager
def _immediate() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C be raised in the objective."""
    yield lambda: False


class _Immediate(Executor):
    """Calls in the calling thread, so that Ctrl-C and a debugger reach the objective."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return a future that is done."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _check(space: Mapping[str, Domain], resource: Any, counts: Mapping[str, Any]) -> None:
    if not isinstance(space, Mapping) or not space:
        raise InputError(f"space must map at least one parameter to its domain, but got {space!r}.")
    for name, domain in space.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"space must have names of keyword arguments, but got {name!r}.")
        _check_domain(name, domain)
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int) or count < 1):
            raise InputError(f"{name} must be an integer of at least 1, but got {count!r}.")
    if resource is None:
        return
    pair = resource if isinstance(resource, tuple) and len(resource) == 2 else (None, None)
    if not isinstance(pair[0], str) or not isinstance(pair[1], int) or pair[1] < 1:
        raise InputError(f"resource must be a name and an integer of at least 1, but got {resource!r}.")
    if pair[0] in space:
        raise InputError(f"resource must not be a parameter of the space, but {pair[0]!r} is.")


def _check_domain(name: str, domain: Any) -> None:
    if not isinstance(domain, Domain):
        raise InputError(f"{name} must be kd.uniform, kd.log_uniform, kd.integers or kd.choice, but got {domain!r}.")
    for bound in (domain.low, domain.high, domain.step):
        if bound is not None and not isinstance(bound, Real):
            raise InputError(f"{name} must have numbers as bounds and step, but got {bound!r}.")


def _check_objective(objective: Any, names: Sequence[str]) -> None:
    if not callable(objective):
        raise InputError(f"objective must be a function of {', '.join(names)}, but got {objective!r}.")
    try:
        signature = inspect.signature(objective)
    except ValueError:  # some built-in functions have none
        return
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        taken = ", ".join(names)
        raise InputError(f"objective must take {taken} as keyword arguments, but: {error}.") from None


def _check_goals(goals: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the first goal's name and direction; a ValueError gives the rule that one breaks and the value."""
    if not goals:
        raise InputError("goal must name at least one objective, but got {}.")
    for name, goal in goals.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(f"goal must have names without blanks, commas and signs of comparison, but got {name!r}.")
        if goal not in ("minimize", "maximize"):
            raise InputError(f"goal must be minimize or maximize, but got {goal!r}.")
    return next(iter(goals.items()))


def _suggester(algorithm: Any) -> tuple[str, Suggester, bool]:
    """Return a suggester with its name, and whether it needs a resource."""
    suggester = load_suggester(algorithm) if isinstance(algorithm, str) else algorithm
    missing = [name for name in ("validate", "planned_trials", "suggest") if not callable(getattr(suggester, name, 0))]
    if missing:
        raise InputError(f"algorithm must have the functions of a Suggester, but {suggester!r} has no {missing[0]}.")
    method = getattr(suggester, "METHOD", {})
    name = algorithm if isinstance(algorithm, str) else method.get("name", type(suggester).__name__)
    return name, suggester, method.get("kind") == MULTI_FIDELITY
