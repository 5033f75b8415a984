"""Hyperband: successive halving of random configurations, from many at a small resource to few at the full one.

Source: Li et al., Hyperband, JMLR 18 (2018), Algorithm 1. Deviations: `halving`, `brackets`.
"""

from collections.abc import Mapping

from kondense.errors import InputError
from kondense.search import conditions, goals, halving
from kondense.search import earlier as earlier_trials
from kondense.search import settings as reading
from kondense.search.brackets import SIZES, BracketPlan
from kondense.search.earlier import read_earlier
from kondense.search.goals import all_goals, read_goals
from kondense.search.history import History, Suggestion
from kondense.search.observations import collect
from kondense.search.sampling import draw_random, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.start import read_start, starting_point, taken, with_best
from kondense.search.state import ExperimentState

METHOD = {
    "name": "hyperband",
    "kind": "multi-fidelity",
    "summary": "successive halving of random configurations in several brackets",
}
SETTINGS = {
    "resource_name": "name of the int parameter that is the resource, such as epochs",
    "r_l": "maximum resource, Katib's name (default: the parameter's max)",
    "max_resource": "maximum resource, same as r_l",
    "min_resource": "minimum resource (default: the parameter's smallest value of at least 1)",
    "eta": "one of eta configurations is promoted, to eta times the resource (default 3)",
    "bracket_sizes": "ceil (Algorithm 1 of the paper) or floor (its Table 1); default ceil, floor for bohb",
    "start": "configurations to start from, name=value joined by commas, several joined by semicolons",
    **goals.SETTINGS,
    **conditions.SETTINGS,
    **earlier_trials.SETTINGS,
}


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts; a ValueError gives the broken rule and the value."""
    reading.check(settings, SETTINGS, max_trial_count, parallel_trial_count)
    plan, resource_name = read_plan(space, settings)
    read_start(settings, space.without(resource_name), plan)
    read_earlier(settings, space.without(resource_name), all_goals(read_goals(settings, "", "minimize")))


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int:
    """Return the number of trials in one cycle of the brackets: the natural maxTrialCount."""
    return read_plan(space, settings)[0].trials


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` trials: certain promotions first, then new random configurations."""
    plan, resource_name = read_plan(space, settings)
    searched = space.without(resource_name)
    earlier = read_earlier(settings, searched, all_goals(history.goals, history.goal))
    points = with_best(read_start(settings, searched, plan), plan, earlier.best if earlier else None)

    depths = [len(bracket.sizes) for bracket in plan.brackets]
    state = ExperimentState(history, depths)
    share = earlier.share(collect(state, depths), state, max(depths) - 1) if earlier else 0.0

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
        rng = generator(seed_of(settings, seed), history.experiment, bracket, config)
        return draw_random(searched, rng, taken(points, plan, state, bracket))

    return halving.suggest(plan, resource_name, state, count, halving.Policy(draw, max_trials=history.max_trials))


def read_plan(
    space: SearchSpace, settings: Mapping[str, str], all_sizes: tuple[str, ...] = SIZES
) -> tuple[BracketPlan, str]:
    """Return the brackets and the name of the resource's parameter.

    The default of the setting `bracket_sizes` is the first of `all_sizes`.

    Raises:
        ValueError: a rule is broken; the message gives the rule and the value.
    """
    name = settings.get("resource_name", "")
    if not name:
        raise InputError("setting resource_name must name the int parameter that is the resource, but is not set.")
    parameter = space[name]
    if parameter.kind != "int" or parameter.low is None or parameter.high is None:
        raise InputError(f"setting resource_name must name an int parameter, but {name!r} is {parameter.kind}.")
    if len(space.parameters) == 1:
        raise InputError(f"the space must have a parameter besides the resource {name!r}, but has none.")
    lowest, highest = int(parameter.low), int(parameter.high)
    step = int(parameter.step or 1)
    first = lowest if lowest >= 1 else lowest + -(-(1 - lowest) // step) * step
    smallest = reading.read_integer(settings, "min_resource", first, minimum=1)
    named = "r_l" if "r_l" in settings else "max_resource"
    largest = reading.read_integer(settings, named, highest, minimum=1)
    if "r_l" in settings and reading.read_integer(settings, "max_resource", largest, minimum=1) != largest:
        raise InputError(
            f"settings r_l and max_resource mean the same, but r_l is {largest} "
            f"and max_resource is {settings['max_resource']}."
        )
    # Katib's hyperband takes any r_l, and gives trials more of the resource than its range says, as in its own example.
    beyond = largest > highest and named != "r_l"
    if smallest < lowest or beyond or largest < smallest:
        raise InputError(
            f"the resource must be in {name}'s range, {lowest} <= min_resource <= {named} <= {highest}, "
            f"but got min_resource={smallest}, {named}={largest}."
        )
    plan = BracketPlan(
        min_resource=smallest,
        max_resource=largest,
        eta=reading.read_integer(settings, "eta", 3, minimum=2),
        sizes=reading.read_choice(settings, "bracket_sizes", all_sizes),
        resource_low=lowest,
        resource_step=step,
    )
    return plan, name
