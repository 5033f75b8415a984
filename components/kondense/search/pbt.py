"""Population based training: generations whose members start from the weights of earlier ones.

A generation is a bracket of the ledger, so a trial's name has its generation; it ends once `n_population` of its trials
have a value, and workers that are free earlier receive further members. The worst members of a generation (the share
`truncation_threshold`) are replaced by copies of the best ones, the others go on with perturbed hyperparameters. The
label PARENT of a trial names the one whose files it continues, which the service, or a local run, copies.

Source: Jaderberg et al. 2017, with the settings and the two roles of Katib's own service. Deviations: a copy continues
the weights of the member that it copies (Katib's gives it those of the member that it replaces); a perturbed value is
one of the parameter's, and another than before; a failed trial makes room for another member.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.search import settings as reading
from kondense.search.history import History, Proposal, Suggestion
from kondense.search.ledger import digest
from kondense.search.parameter import Parameter
from kondense.search.sampling import draw_random, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.state import ExperimentState

METHOD = {
    "name": "pbt",
    "kind": "single-fidelity",
    "summary": "population based training: generations that continue the weights of earlier ones",
    "repeats": True,  # a copy has the configuration of the trial that it continues
}
DIRECTORY = "suggestion_trial_dir"
SETTINGS = {
    DIRECTORY: "directory of a trial's files, which its successors continue",
    "n_population": "trials of a generation, at least 5",
    "truncation_threshold": "share of a generation that is replaced by copies of its best, [0, 1]",
    "resample_probability": "share of the hyperparameters that are drawn anew instead of perturbed, [0, 1]",
}
REQUIRED = (DIRECTORY, "n_population", "truncation_threshold")
GENERATION, PARENT = "pbt.suggestion.katib.kubeflow.org/generation", "pbt.suggestion.katib.kubeflow.org/parent"
FACTORS = (0.8, 1.2)
TRIES = 32  # perturbations before a configuration that its generation has already is taken


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    _Config.read(settings)


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int | None:
    """Return None: a population can always go on."""
    return None


@dataclass(frozen=True)
class _Config:
    population: int
    threshold: float
    resample: float | None

    @classmethod
    def read(cls, settings: Mapping[str, str]) -> "_Config":
        missing = [name for name in REQUIRED if not settings.get(name)]
        if missing:
            raise InputError(f"pbt needs the settings {', '.join(REQUIRED)}, but lacks {', '.join(missing)}.")
        resample = "resample_probability"
        return cls(
            reading.read_integer(settings, "n_population", 5, minimum=5),
            reading.read_number(settings, "truncation_threshold", 0, 0, 1),
            reading.read_number(settings, resample, 0, 0, 1) if resample in settings else None,
        )


@dataclass(frozen=True)
class _Role:
    """A member to make: from a parent's values, as they are or perturbed."""

    parent: int  # number in the generation before
    copied: bool


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` members of the current generation, and of the next where the current one is complete."""
    config = _Config.read(settings)
    state = ExperimentState(history)
    fixed = seed_of(settings, seed)
    if not state.rungs or len(_finished(state, len(state.rungs) - 1)) >= config.population:
        state.start_bracket()
    generation = len(state.rungs) - 1
    roles = _roles(state, generation - 1, config, generator(fixed, f"{history.experiment}/roles", generation, 0))
    proposals: list[Proposal] = []
    for _ in range(count):
        number = len(state.ledger.digests[generation])
        rng = generator(fixed, history.experiment, generation, number)
        role = roles[number % len(roles)] if roles else None
        assignments = _member(space, state, role, config, rng)
        labels = {GENERATION: str(generation)}
        if role is not None:
            labels[PARENT] = state.ledger.names(history.experiment, generation - 1)[0][role.parent]
        proposal = state.proposal(state.add(generation, assignments), assignments)
        proposals.append(replace(proposal, labels={**proposal.labels, **labels}))
    return state.reply(proposals)


def _finished(state: ExperimentState, generation: int) -> dict[int, float]:
    """Return the losses of a generation's members that have one, by their number."""
    losses = enumerate(state.rung(generation, 0).losses)
    return {number: loss for number, loss in losses if math.isfinite(loss) and state.assignments[generation][number]}


def _roles(state: ExperimentState, generation: int, config: _Config, rng: np.random.Generator) -> list[_Role]:
    """Return the members to make from a generation; none of the first one, whose members are random."""
    losses = _finished(state, generation) if generation >= 0 else {}
    if not losses:
        return []
    values = np.array(list(losses.values()))
    best, worst = np.quantile(values, (config.threshold, 1 - config.threshold))
    upper = [number for number, loss in losses.items() if loss <= best]
    copied = [number for number, loss in losses.items() if loss > worst][: int(config.population * config.threshold)]
    kept = [number for number, loss in losses.items() if loss <= worst]
    sources = rng.permutation(upper)
    roles = [_Role(int(sources[i % len(sources)]), i < len(sources)) for i in range(len(copied))]
    roles += [_Role(int(number), False) for number in rng.permutation(kept)[: config.population - len(roles)]]
    return roles


def _member(
    space: SearchSpace, state: ExperimentState, role: _Role | None, config: _Config, rng: np.random.Generator
) -> Mapping[str, str]:
    generation = len(state.rungs) - 1
    issued = set(state.ledger.digests[generation])
    if role is None:
        return draw_random(space, rng, issued)
    values = state.assignments[generation - 1][role.parent]
    assert values is not None, "a parent has a value, so its trial is reported"
    if role.copied and digest(values) not in issued:
        return values
    made = dict(values)
    for _ in range(TRIES):
        made = {each.name: _changed(each, values[each.name], config.resample, rng) for each in space.parameters}
        if digest(made) not in issued:
            return made
    return draw_random(space, rng, issued)


def _changed(parameter: Parameter, value: str, resample: float | None, rng: np.random.Generator) -> str:
    if resample is not None:
        return parameter.from_unit(rng.random(1))[0] if rng.random() < resample else value
    if parameter.values:
        index = parameter.values.index(value) + (1 if rng.random() < 0.5 else -1)
        return parameter.values[index % len(parameter.values)]
    factor = FACTORS[int(rng.integers(len(FACTORS)))]
    low, high, number = float(parameter.low or 0), float(parameter.high or 0), parameter.number(value)
    moved = number * factor if number else (factor - 1) * (high - low)
    text = _nearest(parameter, min(max(moved, low), high))
    if text == value and parameter.levels is not None:  # a step too large for a fifth: the neighbouring value
        unit = parameter.to_unit([value])
        cell = 1 / parameter.levels
        text = parameter.from_unit(np.clip(unit + (cell if moved > number else -cell), 0, 1))[0]
    return text


def _nearest(parameter: Parameter, number: float) -> str:
    unit: NDArray[np.float64] = parameter.to_unit([repr(number)])
    return parameter.from_unit(unit)[0]
