"""Hyperparameter search over a Python function."""

import contextlib
import dataclasses
import hashlib
import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from kondense.errors import InputError, KondenseError
from kondense.search.history import Goal, Status
from kondense.search.journal import Journal
from kondense.search.parameter import Distribution, Kind, Parameter
from kondense.search.run import Outcome, Run, Search, TrialRecord
from kondense.search.space import SearchSpace
from kondense.search.suggesters import MULTI_FIDELITY, Suggester, load_suggester

DEFAULT_TRIALS = 50  # of a search without a natural number of trials
SHOWN = 10  # trials in a result's table
CHART = (360, 120)  # pixels


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values of one parameter, made by `uniform`, `log_uniform`, `integers` or `choice`."""

    kind: Kind
    low: float | None = None
    high: float | None = None
    step: float | None = None
    distribution: Distribution = "uniform"
    values: tuple[Any, ...] = ()

    def parameter(self, name: str) -> Parameter:
        """Return the parameter of this name; a ValueError gives the rule that the domain breaks and the value."""
        texts = tuple(map(str, self.values))
        return Parameter(name, self.kind, self.low, self.high, self.step, self.distribution, texts)

    def value(self, text: str) -> Any:
        """Return the Python value of a suggester's string."""
        if self.values:
            return next(value for value in self.values if str(value) == text)
        return int(text) if self.kind == "int" else float(text)


def uniform(low: float, high: float, step: float | None = None) -> Domain:
    """Return the real numbers in [low, high], or those at distance `step` from each other.

    >>> uniform(0.0, 0.9).parameter("momentum").distribution
    'uniform'
    """
    return Domain("double", low, high, step)


def log_uniform(low: float, high: float) -> Domain:
    """Return the real numbers in [low, high], low > 0, uniform on a logarithmic axis.

    >>> log_uniform(1e-3, 1e-1).parameter("lr").low
    0.001
    """
    return Domain("double", low, high, distribution="logUniform")


def integers(low: int, high: int, step: int = 1, *, log: bool = False) -> Domain:
    """Return the integers from `low` to `high`, both included, uniform or, with `log`, uniform on a logarithmic axis.

    >>> integers(8, 64, step=8).parameter("width").levels
    8
    """
    return Domain("int", low, high, step, "logUniform" if log else "uniform")


def choice(values: Sequence[Any]) -> Domain:
    """Return the given values: ordered if all are numbers, else without order. Their texts must differ.

    >>> choice(["sgd", "adam"]).parameter("optimizer").ordered
    False
    """
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return Domain("discrete" if numbers else "categorical", values=tuple(values))


@dataclasses.dataclass(frozen=True)
class Trial:
    """One evaluation of the objective.

    Attributes:
        name: encodes bracket, rung and configuration; promoted configurations keep their number.
        config: the objective's keyword arguments, without the resource.
        resource: the resource; None without one.
        value: the objective's value; None if it failed or was not a finite number.
        status: succeeded or failed.
        reason: of a missing value.
        seconds: wall time.
    """

    name: str
    config: Mapping[str, Any]
    resource: int | None
    value: float | None
    status: str
    reason: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The trials of a search; shows itself as a table and a curve in a notebook.

    Attributes:
        trials: the finished trials, in order of ending.
        best: the best trial at the largest resource reached; None if no trial has a value.
        outcome: succeeded, failed or interrupted.
        reason: of the outcome.
        goal: minimize or maximize.
    """

    trials: tuple[Trial, ...]
    best: Trial | None
    outcome: str
    reason: str
    goal: Goal

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The trials as plain dictionaries, such as `pandas.DataFrame(result.rows)` takes."""
        return [
            {**trial.config, **{key: value for key, value in vars(trial).items() if key != "config"}}
            for trial in self.trials
        ]

    def incumbents(self) -> list[float]:
        """Return the best value so far after each trial at the largest resource; NaN before the first."""
        resource = self.best.resource if self.best else None
        best, curve = math.nan, []
        pick = max if self.goal == "maximize" else min
        for trial in self.trials:
            if trial.value is not None and trial.resource == resource:
                best = trial.value if math.isnan(best) else pick(best, trial.value)
            curve.append(best)
        return curve

    def __str__(self) -> str:
        """Return the outcome and the best configuration."""
        lines = [f"{self.outcome}: {self.reason}; {len(self.trials)} trials"]
        lines.append(f"best value {self.best.value:.6g}{_at(self.best)}" if self.best else "no trial has a value")
        lines += [f"  {name} = {value!r}" for name, value in (self.best.config if self.best else {}).items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        sign = -1.0 if self.goal == "maximize" else 1.0
        ranked = sorted(self.trials, key=lambda t: (-(t.resource or 0), t.value is None, sign * (t.value or 0.0)))
        names = list(ranked[0].config) if ranked else []
        rows = [["value", "resource", *names, "seconds", "status"]]
        for trial in ranked[:SHOWN]:
            value = "" if trial.value is None else f"{trial.value:.6g}"
            resource = "" if trial.resource is None else str(trial.resource)
            status = f"{trial.status}: {trial.reason}" if trial.reason else trial.status
            rows.append([value, resource, *(f"{trial.config[n]}" for n in names), f"{trial.seconds:.2f}", status])
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
        heading = html.escape(f"{self.outcome}: {self.reason}")
        body = "".join(f"<tr>{row}</tr>" for row in cells[1:])
        return f"<p>{heading}</p>{self._curve()}<table><thead><tr>{cells[0]}</tr></thead><tbody>{body}</tbody></table>"

    def _curve(self) -> str:
        """Return the best value so far as an SVG."""
        curve = [(index, value) for index, value in enumerate(self.incumbents()) if not math.isnan(value)]
        if not curve:
            return ""
        width, height = CHART
        low, high = min(value for _, value in curve), max(value for _, value in curve)
        x = [8 + (width - 16) * index / max(len(self.trials) - 1, 1) for index, _ in curve]
        y = [height - 20 - (height - 40) * ((value - low) / (high - low) if high > low else 0.5) for _, value in curve]
        steps = f"M{x[0]:.1f} {y[0]:.1f}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in zip(x[1:], y[1:], strict=True))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">'
            f'<text x="8" y="14" font-size="12">best value so far: {curve[-1][1]:.6g}</text>'
            f'<path d="{steps}" fill="none" stroke="#0b62a8" stroke-width="2"/></svg>'
        )


class FailedTrialsError(KondenseError):
    """So many trials failed that the search ended; `result` has the finished ones, the cause is the last error."""

    def __init__(self, message: str, result: SearchResult) -> None:
        super().__init__(message)
        self.result = result


def search(
    objective: Callable[..., float],
    space: Mapping[str, Domain],
    *,
    algorithm: str | Suggester | None = None,
    resource: tuple[str, int] | None = None,
    parallel: int = 1,
    max_trials: int | None = None,
    max_failed: int = 3,
    goal: Goal = "maximize",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    journal: str | Path | None = None,
) -> SearchResult:
    """Search the configuration with the best value of a function.

    Args:
        objective: called with the parameters as keyword arguments; returns a number. An exception fails the trial.
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
        goal: `maximize` or `minimize`.
        seed: of the suggester.
        settings: of the algorithm, such as `{"eta": 4}`.
        journal: file to which the trials are written; the same call continues from it after a kill.

    Returns:
        The trials. Ctrl-C ends the search early, with the outcome `interrupted`; calls in threads run to their end,
        but do not count any more.

    Raises:
        ValueError: an argument breaks a rule; the text gives the rule and the value.
        FailedTrialsError: `max_failed` trials failed; its `result` has the finished trials.

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
    """
    _check(space, resource, {"parallel": parallel, "max_trials": max_trials, "max_failed": max_failed})
    fields = {"goal": goal, "seed": seed, "parallel": parallel, "max_trials": max_trials, "max_failed": max_failed}
    definition = _define(space, algorithm, resource, settings or {}, fields)
    task = _Task(objective, space, resource)
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
    searched = SearchSpace(tuple(parameters))
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

    objective: Callable[..., float]
    domains: Mapping[str, Domain]
    resource: tuple[str, int] | None

    def run(self, run: Run, parallel: int) -> SearchResult:
        """Evaluate trials until the search ends."""
        pool = _Immediate() if parallel == 1 else ThreadPoolExecutor(parallel)
        running: dict[Future[_Evaluation], str] = {}
        error: Exception | None = None
        try:
            while (state := run.outcome())[0] is Outcome.RUNNING:
                for trial in run.startable(parallel):
                    run.record("started", name=trial.name)
                    running[pool.submit(_evaluate, self.objective, self.arguments(trial))] = trial.name
                ended = wait(running, return_when=FIRST_COMPLETED).done
                for future in [future for future in running if future in ended]:  # in order of their start
                    value, reason, failure = future.result()
                    status = Status.FAILED if failure else Status.SUCCEEDED
                    run.record("finished", name=running.pop(future), status=status, value=value, reason=reason)
                    error = failure or error
        except KeyboardInterrupt:
            state = Outcome.INTERRUPTED, "stopped by Ctrl-C"
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        result = self.result(run, *state)
        if state[0] is Outcome.FAILED:
            failed = next(trial for trial in reversed(result.trials) if trial.status == Status.FAILED)
            raise FailedTrialsError(f"{state[1]}; the last: {failed.reason}", result) from error
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
        return SearchResult(tuple(trials.values()), chosen, outcome.lower(), reason, run.search.goal)

    def trial(self, record: TrialRecord) -> Trial:
        """Return a finished trial with Python values."""
        config = self.arguments(record)
        resource = config.pop(self.resource[0]) if self.resource else None
        seconds = record.seconds or 0.0
        return Trial(record.name, config, resource, record.value, record.status.value, record.reason, seconds)


_Evaluation = tuple[float | None, str, Exception | None]


class _Immediate(Executor):
    """Calls in the calling thread, so that Ctrl-C and a debugger reach the objective."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return a future that is done."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _evaluate(objective: Callable[..., float], arguments: Mapping[str, Any]) -> _Evaluation:
    """Return the value, the reason if there is none, and the error."""
    try:
        returned: Any = objective(**arguments)
        try:
            value = float(returned)
        except (TypeError, ValueError):
            raise InputError(f"the objective must return a number, but returned {returned!r}.") from None
    except Exception as error:  # whatever the user's function raises fails its trial
        return None, f"{type(error).__name__}: {error}", error
    return (value, "", None) if math.isfinite(value) else (None, f"the value must be finite, but is {value}", None)


def _check(space: Mapping[str, Domain], resource: Any, counts: Mapping[str, Any]) -> None:
    if not isinstance(space, Mapping) or not space:
        raise InputError(f"space must map at least one parameter to its domain, but got {space!r}.")
    for name, domain in space.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"space must have names of keyword arguments, but got {name!r}.")
        if not isinstance(domain, Domain):
            raise InputError(f"{name} must be uniform, log_uniform, integers or choice, but got {domain!r}.")
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


def _suggester(algorithm: Any) -> tuple[str, Suggester, bool]:
    """Return a suggester with its name, and whether it needs a resource."""
    suggester = load_suggester(algorithm) if isinstance(algorithm, str) else algorithm
    missing = [name for name in ("validate", "planned_trials", "suggest") if not callable(getattr(suggester, name, 0))]
    if missing:
        raise InputError(f"algorithm must have the functions of a Suggester, but {suggester!r} has no {missing[0]}.")
    method = getattr(suggester, "METHOD", {})
    name = algorithm if isinstance(algorithm, str) else method.get("name", type(suggester).__name__)
    return name, suggester, method.get("kind") == MULTI_FIDELITY


def _at(trial: Trial) -> str:
    return "" if trial.resource is None else f" at resource {trial.resource}"
