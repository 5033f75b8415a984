"""Tree-structured Parzen estimator with a joint density of all parameters, by Optuna.

Optuna's study is rebuilt from the history for each request, so that it keeps no state; every proposal has a seed of its
own. Optuna sees an axis per parameter (a coordinate, a number of a value, or a choice), so ranges, steps and
distributions are those of the space.

Source: `TPESampler` of Optuna 5 with `multivariate` and `constant_liar`, as in Katib's own service. Deviations: a
failed trial counts as the worst, and of more than MOST trials a selection is used.
"""

import copy
import functools
import logging
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

# Before the trials of a request are read: objects of modules among theirs would keep the memory of these.
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from kondense.search import settings as reading
from kondense.search.history import History, Suggestion
from kondense.search.ledger import digest
from kondense.search.observations import collect, select
from kondense.search.parameter import Parameter
from kondense.search.sampling import draw_random, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

METHOD = {
    "name": "multivariate-tpe",
    "kind": "single-fidelity",
    "summary": "tree-structured Parzen estimator with one density of all parameters (Optuna)",
}
SETTINGS = {
    "n_startup_trials": "trials with a result before the model proposes (default 10)",
    "n_ei_candidates": "candidates, of which the one with the largest ratio is chosen (default 24)",
}
MOST = 100  # trials of a model; its time grows with them
MOST_LEVELS = 10_000  # of a parameter whose values are numbered; one with more is a coordinate
TRIES = 8  # proposals of the model before a configuration is drawn at random because all were issued before


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    _sizes(settings)


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return the number of configurations in the space; None for a continuous space."""
    return space.size


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` configurations that differ from all issued ones while the space has any left."""
    startup, candidates = _sizes(settings)
    state = ExperimentState(history)
    observations = collect(state)
    known = len(observations)
    fixed = seed_of(settings, seed)
    ready = known >= max(startup, 1)
    selection = generator(fixed, f"{history.experiment}/selection", 0, known)
    study = _study(space, state, observations, selection) if ready else None

    def draw(number: int) -> Mapping[str, str]:
        rng = generator(fixed, history.experiment, 0, number)
        if study is not None:
            study.sampler = _sampler(candidates, int(rng.integers(2**31)))
            for _ in range(TRIES):
                proposed = _ask(study, space)
                if digest(proposed) not in state.ledger.known:
                    return proposed
        return draw_random(space, rng, state.ledger.known)

    return state.issue(count, draw)


def _sizes(settings: Mapping[str, str]) -> tuple[int, int]:
    return (
        reading.read_integer(settings, "n_startup_trials", 10, minimum=0),
        reading.read_integer(settings, "n_ei_candidates", 24, minimum=1),
    )


def _sampler(candidates: int, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls both options experimental
        return TPESampler(
            n_startup_trials=0, n_ei_candidates=candidates, seed=seed, multivariate=True, constant_liar=True
        )


def _study(space: SearchSpace, state: ExperimentState, observations: Any, rng: np.random.Generator) -> optuna.Study:
    """Return a study of the finished trials and those still running."""
    logging.getLogger("optuna").setLevel(logging.WARNING)
    axes = _axes(space)
    study = optuna.create_study()
    chosen = select(observations, MOST, rng)
    for row, loss in zip(chosen.rows(space, state), chosen.losses.tolist(), strict=True):
        trial = create_trial(params=_params(space, row), distributions=axes, value=loss)
        # The study copies what it is given, all of it, which takes most of a proposal's time. A strong reference would
        # be a cycle, and keep the trial until the collector comes.
        vars(trial)["__deepcopy__"] = functools.partial(_shallow, weakref.ref(trial))
        study.add_trial(trial)
    for losses, values in zip((rungs[0].losses for rungs in state.rungs), state.assignments, strict=True):
        waiting = [values[number] for number in np.flatnonzero(np.isnan(losses))]
        running = [each for each in waiting if each is not None]
        for row in space.to_unit(running) if running else ():
            study.add_trial(create_trial(state=TrialState.RUNNING, params=_params(space, row), distributions=axes))
    return study


def _shallow(trial: "weakref.ref[Any]", memo: Any) -> Any:
    return copy.copy(trial())


def _ask(study: optuna.Study, space: SearchSpace) -> dict[str, str]:
    """Return the sampler's next configuration; it counts as running from then on."""
    trial = study.ask(_axes(space))
    unit = np.array([[_coordinate(parameter, trial.params[parameter.name]) for parameter in space.parameters]])
    return space.from_unit(unit)[0]


def _axes(space: SearchSpace) -> dict[str, Any]:
    """Return Optuna's distributions of the parameters."""
    axes: dict[str, Any] = {}
    for parameter in space.parameters:
        if parameter.kind == "categorical":
            axes[parameter.name] = CategoricalDistribution(tuple(range(len(parameter.values))))
        elif _numbered(parameter):
            axes[parameter.name] = IntDistribution(0, (parameter.levels or 1) - 1)
        else:
            axes[parameter.name] = FloatDistribution(0.0, 1.0)
    return axes


def _numbered(parameter: Parameter) -> bool:
    """Return whether each value has the same share of the axis and there are few enough to number them."""
    return parameter.levels is not None and parameter.levels <= MOST_LEVELS and parameter.distribution == "uniform"


def _params(space: SearchSpace, row: Any) -> dict[str, Any]:
    """Return a unit-cube row [D] on Optuna's axes."""
    return {
        parameter.name: min(int(x * (parameter.levels or 1)), (parameter.levels or 1) - 1)
        if _numbered(parameter)
        else float(x)
        for parameter, x in zip(space.parameters, row, strict=True)
    }


def _coordinate(parameter: Parameter, value: float) -> float:
    """Return a value on Optuna's axis as a unit-cube coordinate."""
    return (value + 0.5) / (parameter.levels or 1) if _numbered(parameter) else value
