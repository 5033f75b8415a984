"""BOHB: Hyperband with new configurations from a model of all results so far.

Source: Falkner, Klein, Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018. Bracket
sizes are those of the authors' package (`floor`) unless `bracket_sizes` says otherwise.

The setting `model` chooses between

- `density`: the paper's model, by `parzen`: kernel densities on the highest rung with enough observations.
- `process` (default): a Gaussian process over configurations and rungs, by `gaussian_process`; a function sampled from
  its posterior is minimized (Thompson sampling), at the full resource or, while the data say little about it, at the
  largest resource of which they say enough. Half of the functions deviate from the posterior's mean by a quarter only,
  which exploits. Deviations from the paper: every rung informs the model, weighted by the correlation between rungs
  that the results show; parallel requests differ because each samples another function; rungs are filled in eta waves,
  so that the high rungs have results before the lowest is full, and after the widest bracket the others of a cycle are
  filled by turns; in the first cycle the first wave of each bracket, and all but the last one of the first bracket, are
  random, a hedge against misleading low rungs (but where every trial has the full resource), and the promotions of
  the first waves are decided before configurations of the model compete; once a few trials had the full resource, what
  the model expects there decides promotions (`promotion`); a configuration that was left behind at a smaller resource
  can start again in a bracket of larger ones. With several goals each objective has a process of its own, and each
  constraint another one (`several`); the promotions are those of Hyperband.

`benchmarks/README.md` has the measured regret.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kondense.errors import InputError
from kondense.search import acquisition, halving, hyperband, parzen, promotion, several
from kondense.search import settings as reading
from kondense.search.brackets import BracketPlan
from kondense.search.earlier import read_earlier
from kondense.search.gaussian_process import Process, temperature
from kondense.search.goals import all_goals, read_goals
from kondense.search.halving import Policy
from kondense.search.history import History, Suggestion
from kondense.search.kernel import Data, Encoding, encode
from kondense.search.observations import Observations, collect, select
from kondense.search.parzen import ParzenConfig
from kondense.search.sampling import draw_random, first_new, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.start import read_start, starting_point, taken, with_best
from kondense.search.state import ExperimentState

__all__ = ["planned_trials", "suggest", "validate"]

SIZES = ("floor", "ceil")  # the default first
MODELS = ("process", "density")
RANDOM_FRACTION = {"process": 0.1, "density": 1 / 3}  # default of the setting random_fraction
METHOD = {
    "name": "bohb",
    "kind": "multi-fidelity",
    "summary": "Hyperband with new configurations from a model of all results so far",
}
SETTINGS = {
    **hyperband.SETTINGS,
    "model": "process (a Gaussian process over all rungs, default) or density (the paper's kernel densities)",
    "random_fraction": "share of configurations drawn at random (default 0.1, 1/3 with model density); "
    "with model process its square in brackets of the full resource alone",
    **parzen.SETTINGS,
}

FEWEST = 8  # minimum number of observations of a process
MOST = 80  # maximum number of observations of a process; its cost grows with their cube
INFORMATION = 12.0  # observations of a resource, or their equivalent, before the process proposes for it


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    plan, resource_name = hyperband.read_plan(space, settings, SIZES)
    highest = space[resource_name].high
    if highest is not None and plan.max_resource > highest:
        raise InputError(
            f"setting r_l must be at most {highest:g}, {resource_name}'s max, but got {plan.max_resource}."
        )
    read_start(settings, space.without(resource_name), plan)
    read_earlier(settings, space.without(resource_name), all_goals(read_goals(settings, "", "minimize")))
    _random_fraction(settings)
    ParzenConfig.read(settings)


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int:
    """Return the number of trials in one cycle of the brackets: the natural maxTrialCount."""
    return hyperband.read_plan(space, settings, SIZES)[0].trials


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` trials: certain promotions first, then new configurations from the model."""
    plan, resource_name = hyperband.read_plan(space, settings, SIZES)
    searched = space.without(resource_name)
    earlier = read_earlier(settings, searched, all_goals(history.goals, history.goal))
    points = with_best(read_start(settings, searched, plan), plan, earlier.best if earlier else None)
    rungs_per_bracket = [len(bracket.sizes) for bracket in plan.brackets]
    state = ExperimentState(history, rungs_per_bracket)
    observations = collect(state, rungs_per_bracket)
    random_fraction = _random_fraction(settings)
    waves = 1
    if reading.read_choice(settings, "model", MODELS) == "process":
        propose = partial(_from_process, searched, state, observations, len(plan.brackets) - 1)
        waves = plan.eta
    else:
        propose = partial(parzen.propose, searched, state, observations, ParzenConfig.read(settings))

    share = earlier.share(observations, state, len(plan.brackets) - 1) if earlier else 0.0

    def draw(state: ExperimentState, bracket: int) -> Mapping[str, str]:
        config = len(state.ledger.digests[bracket])
        point = starting_point(points, plan, bracket, config)
        if point is not None:
            return point
        if earlier is not None:
            rng = generator(seed_of(settings, seed), f"{history.experiment}/earlier", bracket, config)
            proposed = earlier.draw(rng, share, taken(points, plan, state, bracket))
            if proposed is not None:
                return proposed
        rng = generator(seed_of(settings, seed), f"{history.experiment}/model", bracket, config)
        # Where every trial has the full resource, a random one costs most.
        costly = waves > 1 and len(plan.bracket(bracket).sizes) == 1
        chance = random_fraction**2 if costly else random_fraction
        if rng.random() >= chance and not _hedged(plan, waves, bracket, config):
            rows = propose(rng)
            again = partial(halving.left_behind, plan, state, bracket) if waves > 1 else None
            kept = taken(points, plan, state, bracket)
            proposed = None if rows is None else first_new(searched, rows, kept, again)
            if proposed is not None:
                return proposed
        # A random configuration is the one that Hyperband draws for this bracket and number.
        rng = generator(seed_of(settings, seed), history.experiment, bracket, config)
        return draw_random(searched, rng, taken(points, plan, state, bracket))

    judge = halving.by_loss
    if waves > 1:
        source = partial(generator, seed_of(settings, seed), f"{history.experiment}/promotion", 0, len(observations))
        judge = promotion.Judge(searched, state, observations, rungs_per_bracket, source)
    return halving.suggest(plan, resource_name, state, count, Policy(draw, waves, history.max_trials, judge))


def _hedged(plan: BracketPlan, waves: int, bracket: int, config: int) -> bool:
    """Return whether a configuration is of those waves of the first cycle that are random."""
    if waves == 1 or bracket >= len(plan.brackets) or len(plan.bracket(bracket).sizes) == 1:
        return False  # no low rung can mislead where every trial has the full resource
    # Before a second bracket starts, nothing shows how far the lowest rungs mislead.
    random = max(waves - 1, 1) if bracket == 0 else 1
    return config < plan.bracket(bracket).sizes[0] * random // waves


def _random_fraction(settings: Mapping[str, str]) -> float:
    model = reading.read_choice(settings, "model", MODELS)
    return reading.read_number(settings, "random_fraction", RANDOM_FRACTION[model], 0, 1)


def _from_process(
    space: SearchSpace, state: ExperimentState, observations: Observations, top: int, rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """Return unit-cube rows in rising order of a function sampled from the process; None while data are too few."""
    if len(observations) < FEWEST:
        return None
    chosen = select(observations, MOST, rng)
    rows = chosen.rows(space, state)

    def fitted(encoding: Encoding, levels: NDArray[np.int64], targets: NDArray[np.float64]) -> Process:
        return Process(Data(encoding, top - levels, targets - targets.mean(), len(space.parameters)), rng)

    targets, encoding = several.targets(chosen, state), encode(space, rows)
    processes = [fitted(encoding, chosen.levels, each) for each in targets]
    gaps = range(top - int(chosen.levels.min()) + 1)
    gap = next((gap for gap in gaps if min(each.information(gap) for each in processes) >= INFORMATION), None)
    if gap is None:
        return None
    heat = temperature(rng)
    drawn = [_drawn(process, space, gap, heat, rng) for process in processes]
    broken = [
        several.calibrated(
            _drawn(fitted(encode(space, rows[known]), chosen.levels[known], scores), space, gap, heat, rng),
            rows[known],
            scores,
        )
        for known, scores in several.margins(chosen, state)
    ]
    worst = [float((each - each.mean()).max()) for each in targets]
    function = several.scalarized(drawn, worst, broken, rng)
    return acquisition.minimize(function, space, rows, rng)


def _drawn(process: Process, space: SearchSpace, gap: int, heat: float, rng: np.random.Generator) -> several.Drawn:
    function = process.draw(rng, min(gap, len(process.shape.links)), heat)
    return lambda unit: function(encode(space, unit))
