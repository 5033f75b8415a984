"""Asynchronous successive halving: the choice of the next trial.

Deviations from Algorithm 1 of Hyperband, which runs one rung after the other:

- A worker without a promotion starts the next configuration, of the next bracket if necessary, because a controller
  rejects a reply of any other length than requested.
- A configuration is promoted as soon as no unfinished trial of its rung can change the decision. The promoted
  configurations are the same, only earlier.
- A failed configuration is not promoted, even if its slot stays empty.
- With several waves, a rung is filled in that many equal parts, and after each part its share of the slots above goes
  to the best of all parts so far. After the widest bracket those of a cycle are filled by turns, one part each: a
  model receives results of all resources early, and a search that ends soon has not staked all on the smallest.
- A model may order the configurations that wait for a promotion instead of their losses.
- If the number of trials is known, the slots above the lowest rung of all started brackets are reserved for promotions.
  Once the remaining trials only suffice for these, a worker without a certain promotion takes the most likely one
  instead of a new configuration, so that the brackets are complete for any number of workers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kondense.search.brackets import Bracket, BracketPlan
from kondense.search.history import Suggestion
from kondense.search.ledger import Identity
from kondense.search.state import ExperimentState

Draw = Callable[[ExperimentState, int], Mapping[str, str]]
"""Returns a new configuration, without its resource, for a bracket."""


Judge = Callable[[int, int, list[int], list[float]], Sequence[float]]
"""Returns what orders configurations for a promotion, the least first: bracket, rung, configurations, their losses."""


def by_loss(bracket: int, rung: int, configs: list[int], losses: list[float]) -> Sequence[float]:
    """Order configurations by their losses in the rung."""
    return losses


@dataclass(frozen=True)
class Policy:
    """How the brackets are filled.

    Args:
        draw: returns a new configuration.
        waves: equal parts of a rung, each followed by promotions.
        max_trials: number of trials in total; None if unknown.
        judge: orders the configurations that wait for a promotion.
    """

    draw: Draw
    waves: int = 1
    max_trials: int | None = None
    judge: Judge = by_loss


def suggest(plan: BracketPlan, resource_name: str, state: ExperimentState, count: int, policy: Policy) -> Suggestion:
    """Issue `count` trials: promotions first, then new configurations.

    Args:
        plan: the brackets.
        resource_name: the parameter that is the resource.
        state: the experiment's state, which records the issued trials.
        count: number of trials.
        policy: how the brackets are filled.
    """
    proposals = []
    search = _Promotions(plan, state, policy.waves, policy.judge)
    for _ in range(count):
        issued, assignments = _next_trial(search, resource_name, policy)
        search.forget(issued.bracket)
        resource = plan.bracket(issued.bracket).resources[issued.rung]
        proposals.append(state.proposal(issued, {**assignments, resource_name: str(resource)}))
    return state.reply(proposals)


def left_behind(plan: BracketPlan, state: ExperimentState, number: int, digest: str) -> bool:
    """Return whether an issued configuration, by its digest, may start again in bracket `number`.

    No trial of it failed, and none had, or may still be promoted to, any of the bracket's resources.
    """
    lowest = plan.bracket(number).resources[0]
    if lowest == plan.brackets[0].resources[0]:
        return False
    found = False
    for bracket, digests in enumerate(state.ledger.digests):
        if digest not in digests:
            continue
        found = True
        config = digests.index(digest)
        sizes, resources = plan.bracket(bracket).sizes, plan.bracket(bracket).resources
        for level, rung in enumerate(state.rungs[bracket]):
            if config in rung.configs:
                decided = level + 1 == len(sizes) or len(state.rung(bracket, level + 1).configs) >= sizes[level + 1]
                failed = rung.losses[rung.configs.index(config)] == math.inf
                if failed or not decided or resources[level] >= lowest:
                    return False
    return found


_Candidate = tuple[bool, float, int, tuple[int, int, int]]
"""Whether it has a result, the share of results in its rung, the resource; (bracket, rung to enter, configuration)."""


class _Promotions:
    """The promotions of each bracket, which change with the bracket's trials only.

    Args:
        plan: the brackets.
        state: the experiment's state.
        waves: as in ``Policy``.
        judge: as in ``Policy``.
    """

    def __init__(self, plan: BracketPlan, state: ExperimentState, waves: int, judge: Judge) -> None:
        self.plan, self.state, self.waves, self.judge = plan, state, waves, judge
        self._certain: dict[int, list[tuple[int, int]]] = {}
        self._reserved: dict[int, tuple[int, list[_Candidate]]] = {}

    def forget(self, number: int) -> None:
        """Take the changes of one bracket into account."""
        self._certain.pop(number, None)
        self._reserved.pop(number, None)

    def certain(self, number: int) -> list[tuple[int, int]]:
        """Return a bracket's certain promotions: (rung to enter, configuration)."""
        if number not in self._certain:
            sizes = self.plan.bracket(number).sizes
            self._certain[number] = _promotions(sizes, self.state, number, self.waves, self.judge)
        return self._certain[number]

    def reserved(self, number: int) -> tuple[int, list[_Candidate]]:
        """Return the number of a bracket's trials that are reserved for promotions, and those likely."""
        if number not in self._reserved:
            self._reserved[number] = _reserved_promotions(self.plan.bracket(number), self.state, number)
        return self._reserved[number]


def _next_trial(search: _Promotions, resource_name: str, policy: Policy) -> tuple[Identity, Mapping[str, str]]:
    plan, state = search.plan, search.state
    promotion = _best_promotion(search)
    if promotion is None and policy.max_trials is not None:
        promotion = _reserved_promotion(search, policy.max_trials - state.issued)
    if promotion is not None:
        bracket, rung, config = promotion
        assignments = state.assignments[bracket][config]
        assert assignments is not None  # a configuration without assignments has no finite loss
        return state.promote(bracket, rung, config), assignments
    bracket = _next_bracket(plan, state, policy.waves)
    while len(state.rungs) <= bracket:
        state.start_bracket()
    assignments = policy.draw(state, bracket)
    return state.add(bracket, assignments, resource_name), assignments


def _next_bracket(plan: BracketPlan, state: ExperimentState, waves: int) -> int:
    """Return the bracket of the next new configuration: the cycle's first, then that with the fewest whole waves."""
    first = max(len(state.rungs) - 1, 0) // len(plan.brackets) * len(plan.brackets)
    open_brackets = []
    for number in range(first, first + len(plan.brackets)):
        size = plan.bracket(number).sizes[0]
        filled = len(state.rung(number, 0).configs) if number < len(state.rungs) else 0
        if filled < size and number == first:
            return number
        if filled < size:
            open_brackets.append((sum(filled >= size * wave // waves for wave in range(1, waves)), number))
    return min(open_brackets)[1] if open_brackets else first + len(plan.brackets)


def _best_promotion(search: _Promotions) -> tuple[int, int, int] | None:
    """Return the promotion to the largest resource, the oldest of equals: (bracket, rung to enter, configuration)."""
    best: tuple[int, int, int] | None = None
    largest = 0
    for number in range(len(search.state.rungs)):
        for rung, config in search.certain(number):
            if (resource := search.plan.bracket(number).resources[rung]) > largest:
                largest, best = resource, (number, rung, config)
    return best


def _promotions(
    sizes: tuple[int, ...], state: ExperimentState, number: int, waves: int, judge: Judge
) -> list[tuple[int, int]]:
    """Return certain promotions within one bracket: (rung to enter, configuration)."""
    promotions = []
    for wave in range(1, waves + 1):
        promotions += _promotions_of_wave([size * wave // waves for size in sizes], state, number, judge)
    return promotions


def _promotions_of_wave(sizes: list[int], state: ExperimentState, number: int, judge: Judge) -> list[tuple[int, int]]:
    """Return the best certain promotion into each rung, with each rung limited to its first `sizes` members."""
    promotions = []
    complete = False  # whether the rung gets no further configurations, though it may have room
    for level in range(len(sizes) - 1):
        rung, above = state.rung(number, level), state.rung(number, level + 1)
        slots = sizes[level + 1] - len(above.configs)
        if slots <= 0:
            continue
        losses = rung.losses[: sizes[level]]
        unknown = sum(map(math.isnan, losses)) + (0 if complete else max(sizes[level] - len(losses), 0))
        entered = set(above.configs)
        waiting = sorted(
            (loss, config)
            for loss, config in zip(losses, rung.configs, strict=False)
            if loss < math.inf and config not in entered
        )
        if waiting and slots > unknown:
            values, configs = [loss for loss, _ in waiting], [config for _, config in waiting]
            scores = judge(number, level, configs, values)
            promotions.append((level + 1, min(zip(scores, values, configs, strict=True))[2]))
        complete = unknown == 0 and not waiting
    return promotions


def _reserved_promotion(search: _Promotions, left: int) -> tuple[int, int, int] | None:
    """Return the most likely promotion, as `_best_promotion` does, if all `left` trials are reserved for promotions.

    The most likely one comes from the rung with the largest share of results; among equals it is the one to the largest
    resource. A configuration whose trial is still running is promoted only if no rung has a result.
    """
    reserved = 0
    candidates: list[_Candidate] = []
    for number in range(len(search.state.rungs)):
        slots, likely = search.reserved(number)
        reserved += slots
        candidates += likely
    if left > reserved or not candidates:
        return None
    return max(candidates, key=lambda candidate: candidate[:3])[3]


def _reserved_promotions(bracket: Bracket, state: ExperimentState, number: int) -> tuple[int, list[_Candidate]]:
    """Return the number of reserved slots of a bracket, and the most likely promotion of each of its rungs."""
    reserved = 0
    candidates: list[_Candidate] = []
    coming = 0  # slots of the rung below that promotions will fill
    for level in range(len(bracket.sizes) - 1):
        rung, above = state.rung(number, level), state.rung(number, level + 1)
        members = zip(rung.losses, rung.configs, strict=True)
        entered = set(above.configs)
        eligible = [member for member in members if member[1] not in entered and member[0] != math.inf]
        waiting = sorted(member for member in eligible if not math.isnan(member[0]))
        slots = max(bracket.sizes[level + 1] - len(above.configs), 0)
        if slots and eligible:
            unknown = (len(eligible) - len(waiting) + coming) / (len(rung.losses) + coming)
            promotion = (number, level + 1, (waiting or eligible)[0][1])
            candidates.append((bool(waiting), 1 - unknown, bracket.resources[level + 1], promotion))
        coming = min(slots, len(eligible) + coming)
        reserved += coming
    return reserved, candidates
