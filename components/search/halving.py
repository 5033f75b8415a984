"""Successive halving that never waits: which trial to issue next.

Differences from Algorithm 1 of Hyperband, which runs one rung after the other:

- Deviation: a slot that finds no promotion starts the next configuration, of the next bracket if need be, because
  a controller refuses a reply of any other length than asked.
- Deviation: a configuration is promoted as soon as no unfinished trial of its rung can change that, not when the last
  one has ended. The promoted ones are the same, only sooner.
- Deviation: a configuration that failed is not promoted, even if its seat stays empty.
"""

import math
from collections.abc import Callable, Mapping

from components.search.board import Board
from components.search.brackets import BracketPlan
from components.search.ledger import SETTING, Identity
from components.search.proposal import Proposal, Suggestion

Draw = Callable[[Board, int], Mapping[str, str]]
"""Returns a new configuration, without its resource, for a bracket."""


def suggest(plan: BracketPlan, resource_name: str, board: Board, count: int, draw: Draw) -> Suggestion:
    """Issue `count` trials: promotions first, then new configurations.

    Args:
        plan: the brackets.
        resource_name: the parameter that carries the resource.
        board: the experiment's state; the trials issued here are entered in it.
        count: trials asked for.
        draw: makes a new configuration.
    """
    proposals = []
    for _ in range(count):
        issued, assignments = _next_trial(plan, resource_name, board, draw)
        resource = plan.bracket(issued.bracket).resources[issued.rung]
        proposals.append(
            Proposal(
                name=issued.name(board.experiment),
                assignments={**assignments, resource_name: str(resource)},
                labels=issued.labels(),
            )
        )
    return Suggestion(tuple(proposals), {SETTING: board.ledger.text()})


def _next_trial(plan: BracketPlan, resource_name: str, board: Board, draw: Draw) -> tuple[Identity, Mapping[str, str]]:
    promotion = _best_promotion(plan, board)
    if promotion is not None:
        bracket, rung, config = promotion
        assignments = board.assignments[bracket][config]
        assert assignments is not None  # a configuration without assignments has no finite loss
        return board.promote(bracket, rung, config), assignments
    bracket = len(board.rungs) - 1
    if bracket < 0 or len(board.rung(bracket, 0).configs) >= plan.bracket(bracket).sizes[0]:
        board.start_bracket()
        bracket += 1
    assignments = draw(board, bracket)
    return board.add(bracket, assignments, resource_name), assignments


def _best_promotion(plan: BracketPlan, board: Board) -> tuple[int, int, int] | None:
    """Return (bracket, rung to enter, configuration) of the promotion to the largest resource; the oldest of equals."""
    best: tuple[int, int, int] | None = None
    largest = 0
    for number in range(len(board.rungs)):
        bracket = plan.bracket(number)
        for rung, config in _promotions(bracket.sizes, board, number):
            if bracket.resources[rung] > largest:
                largest, best = bracket.resources[rung], (number, rung, config)
    return best


def _promotions(sizes: tuple[int, ...], board: Board, number: int) -> list[tuple[int, int]]:
    """Return the best certain promotion into each rung of one bracket: (rung to enter, configuration)."""
    if len(board.rung(number, len(sizes) - 1).configs) >= sizes[-1]:
        return []  # the highest rung is full, so all below it are through
    found = []
    complete = len(board.rung(number, 0).configs) >= sizes[0]
    for level in range(len(sizes) - 1):
        rung, above = board.rung(number, level), board.rung(number, level + 1)
        seats = sizes[level + 1]
        if len(above.configs) >= seats:
            complete = True
            continue
        unknown = sum(map(math.isnan, rung.losses)) + (0 if complete else sizes[level] - len(rung.configs))
        ranked = sorted(
            (loss, config) for loss, config in zip(rung.losses, rung.configs, strict=True) if loss < math.inf
        )
        waiting = [config for _, config in ranked[: max(seats - unknown, 0)] if config not in above.configs]
        if waiting:
            found.append((level + 1, waiting[0]))
        complete = unknown == 0 and not waiting
    return found
