"""Hyperband: successive halving of random configurations, from many at little resource to few at all of it.

Source: Li et al., Hyperband, JMLR 18 (2018), Algorithm 1. Deviations: `halving`, `brackets`.
"""

from collections.abc import Mapping

from kondense.errors import InputError
from kondense.search import halving
from kondense.search import settings as reading
from kondense.search.brackets import SIZES, BracketPlan
from kondense.search.history import History
from kondense.search.proposal import Suggestion
from kondense.search.sampling import draw_random, generator, seed_of
from kondense.search.space import SearchSpace
from kondense.search.start import read_start, starting_point
from kondense.search.state import Board

SETTINGS = ("resource_name", "r_l", "max_resource", "min_resource", "eta", "bracket_sizes", "start")


def validate(
    space: SearchSpace,
    settings: Mapping[str, str],
    *,
    max_trial_count: int | None = None,
    parallel_trial_count: int | None = None,
) -> None:
    """Check an experiment before it starts.

    Raises:
        ValueError: a rule is broken; the message gives the rule and the value.
    """
    reading.check_names(settings, SETTINGS)
    reading.check_counts(max_trial_count, parallel_trial_count)
    plan, resource_name = read_plan(space, settings)
    read_start(settings, space.without(resource_name), plan)


def planned_trials(settings: Mapping[str, str], space: SearchSpace) -> int:
    """Return the number of trials in one cycle of the brackets: the natural maxTrialCount."""
    return read_plan(space, settings)[0].trials


def suggest(space: SearchSpace, settings: Mapping[str, str], seed: int, history: History, count: int) -> Suggestion:
    """Return `count` trials: promotions where they are certain, else new random configurations."""
    plan, resource_name = read_plan(space, settings)
    searched = space.without(resource_name)
    points = read_start(settings, searched, plan)

    def draw(board: Board, bracket: int) -> Mapping[str, str]:
        config = len(board.ledger.digests[bracket])
        point = starting_point(points, plan, board, bracket, config)
        if point is not None:
            return point
        rng = generator(seed_of(settings, seed), history.experiment, bracket, config)
        return draw_random(searched, rng, board.ledger.known)

    return halving.suggest(
        plan, resource_name, Board(history), count, halving.Policy(draw, max_trials=history.max_trials)
    )


def read_plan(
    space: SearchSpace, settings: Mapping[str, str], all_sizes: tuple[str, ...] = SIZES
) -> tuple[BracketPlan, str]:
    """Return the brackets and the name of the resource's parameter.

    Settings: `resource_name` (an int parameter), `max_resource` or Katib's name for it `r_l` (default: the
    parameter's max), `min_resource` (default: its least value of at least 1), `eta` (default 3), `bracket_sizes`
    (`ceil` or `floor`; the default is the first of `all_sizes`).

    Raises:
        ValueError: a rule is broken; the message gives the rule and the value.
    """
    name = settings.get("resource_name", "")
    if not name:
        raise InputError("setting resource_name must name the int parameter that carries the resource, but is not set.")
    parameter = space[name]
    if parameter.kind != "int" or parameter.low is None or parameter.high is None:
        raise InputError(f"setting resource_name must name an int parameter, but {name!r} is {parameter.kind}.")
    if len(space.parameters) == 1:
        raise InputError(f"there must be a parameter besides the resource {name!r}, but there is none.")
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
    if smallest < lowest or largest > highest or largest < smallest:
        raise InputError(
            f"the resource must keep {name}'s range, {lowest} <= min_resource <= {named} <= {highest}, "
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
