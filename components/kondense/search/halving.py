"""Successive halving that never waits: which trial to issue next.

Differences from Algorithm 1 of Hyperband, which runs one rung after the other:

- Deviation: a slot that finds no promotion starts the next configuration, of the next bracket if need be, because
  a controller refuses a reply of any other length than asked.
- Deviation: a configuration is promoted as soon as no unfinished trial of its rung can change that, not when the last
  one has ended. The promoted ones are the same, only sooner.
- Deviation: a configuration that failed is not promoted, even if its seat stays empty.
- Deviation, with more than one wave: a rung is filled in that many equal parts, and after each part its share of the
  seats above is given away, to the best of all parts so far. A model hears from the high rungs that much sooner.
- Deviation, where the number of trials is known: the seats above the lowest rung of all brackets that have begun are
  kept for promotions. When no more trials are left than these, a slot without a certain promotion takes the likeliest
  one instead of a new configuration, so that the brackets are complete at any number of slots.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kondense.search.brackets import BracketPlan
from kondense.search.ledger import SETTING, Identity
from kondense.search.proposal import Proposal, Suggestion
from kondense.search.state import Board

Draw = Callable[[Board, int], Mapping[str, str]]
"""Returns a new configuration, without its resource, for a bracket."""


@dataclass(frozen=True)
class Policy:
    """How the brackets are filled.

    Args:
        draw: makes a new configuration.
        waves: equal parts of a rung after which its share of the seats above is given away.
        max_trials: the trials that there will be in all; None where there is no end.
    """

    draw: Draw
    waves: int = 1
    max_trials: int | None = None


def suggest(plan: BracketPlan, resource_name: str, board: Board, count: int, policy: Policy) -> Suggestion:
    """Issue `count` trials: promotions first, then new configurations.

    Args:
        plan: the brackets.
        resource_name: the parameter that carries the resource.
        board: the experiment's state; the trials issued here are entered in it.
        count: trials asked for.
        policy: how the brackets are filled.
    """
    proposals = []
    for _ in range(count):
        issued, assignments = _next_trial(plan, resource_name, board, policy)
        resource = plan.bracket(issued.bracket).resources[issued.rung]
        proposals.append(
            Proposal(
                name=issued.name(board.experiment),
                assignments={**assignments, resource_name: str(resource)},
                labels=issued.labels(),
            )
        )
    return Suggestion(tuple(proposals), {SETTING: board.ledger.text()})


def _next_trial(
    plan: BracketPlan, resource_name: str, board: Board, policy: Policy
) -> tuple[Identity, Mapping[str, str]]:
    promotion = _best_promotion(plan, board, policy.waves)
    if promotion is None and policy.max_trials is not None:
        promotion = _owed_promotion(plan, board, policy.max_trials - board.issued)
    if promotion is not None:
        bracket, rung, config = promotion
        assignments = board.assignments[bracket][config]
        assert assignments is not None  # a configuration without assignments has no finite loss
        return board.promote(bracket, rung, config), assignments
    bracket = len(board.rungs) - 1
    if bracket < 0 or len(board.rung(bracket, 0).configs) >= plan.bracket(bracket).sizes[0]:
        board.start_bracket()
        bracket += 1
    assignments = policy.draw(board, bracket)
    return board.add(bracket, assignments, resource_name), assignments


def _best_promotion(plan: BracketPlan, board: Board, waves: int) -> tuple[int, int, int] | None:
    """Return (bracket, rung to enter, configuration) of the promotion to the largest resource; the oldest of equals."""
    best: tuple[int, int, int] | None = None
    largest = 0
    for number in range(len(board.rungs)):
        bracket = plan.bracket(number)
        for rung, config in _promotions(bracket.sizes, board, number, waves):
            if bracket.resources[rung] > largest:
                largest, best = bracket.resources[rung], (number, rung, config)
    return best


def _promotions(sizes: tuple[int, ...], board: Board, number: int, waves: int) -> list[tuple[int, int]]:
    """Return certain promotions within one bracket: (rung to enter, configuration)."""
    if len(board.rung(number, len(sizes) - 1).configs) >= sizes[-1]:
        return []  # the highest rung is full, so all below it are through
    found = []
    for wave in range(1, waves + 1):
        found += _of_wave([size * wave // waves for size in sizes], board, number)
    return found


def _of_wave(sizes: list[int], board: Board, number: int) -> list[tuple[int, int]]:
    """Return the best certain promotion into each rung where a rung counts its first `sizes` members only."""
    found = []
    complete = len(board.rung(number, 0).configs) >= sizes[0]
    for level in range(len(sizes) - 1):
        rung, above = board.rung(number, level), board.rung(number, level + 1)
        seats = sizes[level + 1] - len(above.configs)
        if seats <= 0:
            complete = True
            continue
        losses = rung.losses[: sizes[level]]
        unknown = sum(map(math.isnan, losses)) + (0 if complete else max(sizes[level] - len(losses), 0))
        waiting = sorted(
            (loss, config)
            for loss, config in zip(losses, rung.configs, strict=False)
            if loss < math.inf and config not in above.configs
        )
        if waiting and seats > unknown:
            found.append((level + 1, waiting[0][1]))
        complete = unknown == 0 and not waiting
    return found


def _owed_promotion(plan: BracketPlan, board: Board, left: int) -> tuple[int, int, int] | None:
    """Return the likeliest promotion, as `_best_promotion` does, if the trials that are left are owed to promotions.

    The likeliest one comes from the rung of which most is known; among equals it is the one to the largest resource.
    Only where no rung has a result to choose by, a configuration goes up whose trial still runs.
    """
    owed = 0
    found: list[tuple[bool, float, int, tuple[int, int, int]]] = []
    for number in range(len(board.rungs)):
        bracket = plan.bracket(number)
        coming = 0  # seats of the rung below that promotions will fill
        for level in range(len(bracket.sizes) - 1):
            rung, above = board.rung(number, level), board.rung(number, level + 1)
            members = zip(rung.losses, rung.configs, strict=True)
            able = [each for each in members if each[1] not in above.configs and each[0] != math.inf]
            waiting = sorted(each for each in able if not math.isnan(each[0]))
            seats = max(bracket.sizes[level + 1] - len(above.configs), 0)
            if seats and able:
                unknown = (len(able) - len(waiting) + coming) / (len(rung.losses) + coming)
                promotion = (number, level + 1, (waiting or able)[0][1])
                found.append((bool(waiting), 1 - unknown, bracket.resources[level + 1], promotion))
            coming = min(seats, len(able) + coming)
            owed += coming
    if left > owed or not found:
        return None
    return max(found, key=lambda each: each[:3])[3]
