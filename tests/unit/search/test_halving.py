"""The order in which successive halving issues trials: bracket, rung and configuration of each."""

from collections.abc import Mapping

import pytest
from kondense.search.brackets import BracketPlan
from kondense.search.halving import Policy, left_behind, suggest
from kondense.search.history import History, Status, Trial
from kondense.search.ledger import SETTING, identity
from kondense.search.state import ExperimentState

NINE = BracketPlan(1, 9, 3)  # seats of the brackets: 9, 3, 1; 5, 1; 3
Seat = tuple[int, int, int]


class Search:
    """A search whose trials end when the test says so; configuration i of a bracket is drawn as x=i."""

    def __init__(self, plan: BracketPlan = NINE, waves: int = 1, max_trials: int | None = None) -> None:
        self.plan, self.policy = plan, Policy(self.draw, waves, max_trials)
        self.drawn = 0
        self.issued = ""
        self.trials: dict[Seat, Trial] = {}

    def draw(self, state: ExperimentState, bracket: int) -> Mapping[str, str]:
        self.drawn += 1
        return {"x": str(self.drawn)}

    def ask(self, count: int = 1) -> list[Seat]:
        """Ask for trials and return their seats."""
        state = ExperimentState(History(tuple(self.trials.values()), self.issued, "minimize", "e"))
        reply = suggest(self.plan, "epochs", state, count, self.policy)
        self.issued = reply.settings[SETTING]
        seats = []
        for proposal in reply.proposals:
            named = identity(proposal.name)
            assert named
            seats.append((named.bracket, named.rung, named.config))
            self.trials[seats[-1]] = Trial(proposal.name, proposal.assignments, Status.RUNNING)
            resource = self.plan.bracket(named.bracket).resources[named.rung]
            assert proposal.assignments["epochs"] == str(resource)
        return seats

    def tell(self, seat: Seat, loss: float | None) -> None:
        """End a trial, without a loss as failed."""
        status = Status.FAILED if loss is None else Status.SUCCEEDED
        self.trials[seat] = Trial(self.trials[seat].name, self.trials[seat].assignments, status, loss)

    def fill(self, count: int, losses: Mapping[int, float | None], rung: int = 0, bracket: int = 0) -> None:
        """Ask for ``count`` trials at once and end those with a loss in ``losses``."""
        seats = self.ask(count)
        assert [seat[:2] for seat in seats] == [(bracket, rung)] * count
        for config, loss in losses.items():
            self.tell((bracket, rung, config), loss)


def ordered(losses: str) -> dict[int, float | None]:
    """Losses of configurations by a text: a digit each, x for one that failed, - for one that still runs."""
    return {config: None if loss == "x" else float(loss) for config, loss in enumerate(losses) if loss != "-"}


def behind(search: Search, number: int) -> set[int]:
    """Return the configurations of bracket 0 that may start again in bracket ``number``."""
    state = ExperimentState(History(tuple(search.trials.values()), search.issued, "minimize", "e"))
    digests = state.ledger.digests[0]
    assert not left_behind(search.plan, state, number, "unknown")
    return {config for config, digest in enumerate(digests) if left_behind(search.plan, state, number, digest)}


@pytest.mark.parametrize("units", [1, 300])  # of the least resource: also integers of which Python makes new ones
def test_what_may_start_again_was_passed_over_below_the_resources_of_a_bracket(units: int) -> None:
    search = Search(BracketPlan(units, 9 * units, 3))
    search.fill(9, ordered("62845x391"))
    assert search.ask(2) == [(0, 1, 8), (0, 1, 1)]
    assert behind(search, 1) == behind(search, 2) == set()  # each of them may still be promoted
    assert search.ask(1) == [(0, 1, 6)]
    passed = {0, 2, 3, 4, 7}  # neither promoted nor failed, at one epoch
    assert behind(search, 0) == set()  # a bracket from one epoch on has nothing that these lack
    assert behind(search, 1) == behind(search, 2) == passed
    for config, loss in ((8, 5), (1, 4), (6, None)):
        search.tell((0, 1, config), loss)
    assert behind(search, 2) == passed  # the last seat is still open
    assert search.ask(1) == [(0, 2, 1)]
    assert behind(search, 1) == passed  # of three epochs on: 8 had them
    assert behind(search, 2) == {*passed, 8}  # 1 goes on, 6 failed


def test_configurations_of_later_brackets_may_start_again_too() -> None:
    search = Search()
    search.fill(9, {})
    search.fill(5, ordered("53124"), bracket=1)
    assert search.ask(1) == [(1, 1, 2)]
    state = ExperimentState(History(tuple(search.trials.values()), search.issued, "minimize", "e"))
    again = [config for config, digest in enumerate(state.ledger.digests[1]) if left_behind(NINE, state, 2, digest)]
    assert again == [0, 1, 3, 4]  # at three epochs, where bracket 2 starts with nine


def test_the_best_go_up_and_then_the_best_of_them() -> None:
    search = Search()
    search.fill(9, ordered("628457391"))
    assert search.ask(3) == [(0, 1, 8), (0, 1, 1), (0, 1, 6)]
    for config, loss in ((8, 5), (1, 4), (6, 6)):
        search.tell((0, 1, config), loss)
    assert search.ask(2) == [(0, 2, 1), (1, 0, 0)]  # no seat is left, so the next bracket starts


def test_a_promoted_trial_has_the_values_of_its_configuration() -> None:
    search = Search()
    search.fill(9, ordered("628457391"))
    search.ask(1)
    assert search.trials[0, 1, 8].assignments == {"x": "9", "epochs": "3"}


def test_among_equals_the_older_configuration_goes_up() -> None:
    search = Search()
    search.fill(9, ordered("555555555"))
    assert search.ask(3) == [(0, 1, 0), (0, 1, 1), (0, 1, 2)]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ("1234567--", [(0, 1, 0)]),  # two may still be better, so one of three is certain
        ("123456---", []),
        ("12345678-", [(0, 1, 0), (0, 1, 1)]),
        ("12345678x", [(0, 1, 0), (0, 1, 1), (0, 1, 2)]),
        ("1xxxxxxxx", [(0, 1, 0)]),
        ("1xxxxxx--", [(0, 1, 0)]),
        ("xxxxxxxxx", []),
        ("x234567--", [(0, 1, 1)]),
    ],
)
def test_only_certain_promotions_are_made(losses: str, expected: list[Seat]) -> None:
    search = Search()
    search.fill(9, ordered(losses))
    assert search.ask(4) == [*expected, *((1, 0, config) for config in range(4 - len(expected)))]


def test_a_rung_that_is_not_full_counts_what_is_to_come() -> None:
    search = Search()
    search.fill(7, ordered("1234567"))
    assert search.ask(2) == [(0, 1, 0), (0, 0, 7)]  # two seats of nine are empty and may still be better
    search.tell((0, 0, 7), 8)
    assert search.ask(2) == [(0, 1, 1), (0, 0, 8)]


def test_the_empty_seat_of_a_failed_configuration_stays_empty_and_holds_nobody_back() -> None:
    search = Search()
    search.fill(9, ordered("1xx2xxxxx"))
    assert search.ask(2) == [(0, 1, 0), (0, 1, 3)]  # two of three seats
    search.tell((0, 1, 0), 5)
    assert search.ask(1) == [(1, 0, 0)]  # configuration 3 may still be better
    search.tell((0, 1, 3), 4)
    assert search.ask(1) == [(0, 2, 3)]  # though the third seat below it is empty
    search.tell((0, 2, 3), 1)
    assert search.ask(5) == [*((1, 0, config) for config in range(1, 5)), (2, 0, 0)]


def test_the_seat_of_a_trial_that_failed_above_goes_to_no_other() -> None:
    search = Search()
    search.fill(9, ordered("123456789"))
    search.fill(3, {0: None, 1: 7, 2: None}, rung=1)
    assert search.ask(2) == [(0, 2, 1), (1, 0, 0)]


def test_where_all_failed_above_nobody_reaches_the_top() -> None:
    search = Search()
    search.fill(9, ordered("123456789"))
    search.fill(3, {0: None, 1: None, 2: None}, rung=1)
    assert search.ask(1) == [(1, 0, 0)]


def test_the_promotion_to_the_largest_resource_comes_first_and_the_older_bracket_among_equals() -> None:
    search = Search()
    search.fill(9, {})
    search.fill(5, ordered("54321"), bracket=1)
    assert search.ask(1) == [(1, 1, 4)]  # 9 epochs
    search.fill(3, ordered("321"), bracket=2)
    search.fill(9, {}, bracket=3)
    search.fill(5, ordered("12345"), bracket=4)
    for config, loss in ordered("987654321").items():
        search.tell((0, 0, config), loss)
    # To 9 epochs of the fifth bracket first, then to 3 of the first.
    assert search.ask(2) == [(4, 1, 0), (0, 1, 8)]
    for config, loss in ordered("123456789").items():
        search.tell((3, 0, config), loss)
    assert search.ask(3) == [(0, 1, 7), (0, 1, 6), (3, 1, 0)]


def test_a_promotion_to_less_of_a_later_cycle_waits_for_one_to_more() -> None:
    search = Search()
    for bracket, count in enumerate((9, 5, 3)):
        search.fill(count, {}, bracket=bracket)
    search.fill(9, ordered("123456789"), bracket=3)
    for config, loss in ordered("123456789").items():
        search.tell((0, 0, config), loss)
    search.fill(3, ordered("321"), rung=1)
    assert search.ask(2) == [(0, 2, 2), (3, 1, 0)]  # to nine epochs, then to three


def test_cycles_follow_each_other() -> None:
    search = Search()
    seats = [seat[:2] for seat in search.ask(3 * 17)]
    assert seats == [(bracket, 0) for bracket in range(9) for _ in range(NINE.bracket(bracket).sizes[0])]


def test_a_bracket_whose_top_is_full_is_finished() -> None:
    search = Search(BracketPlan(1, 3, 3))  # 3, 1; 2
    search.fill(3, ordered("213"))
    assert search.ask(1) == [(0, 1, 1)]
    search.tell((0, 1, 1), 1)
    assert search.ask(3) == [(1, 0, 0), (1, 0, 1), (2, 0, 0)]


def test_waves_promote_the_best_of_each_part() -> None:
    search = Search(waves=3)
    search.fill(3, ordered("312"))
    assert search.ask(2) == [(0, 1, 1), (0, 0, 3)]  # one of the first three
    assert search.ask(2) == [(0, 0, 4), (0, 0, 5)]
    for config, loss in ((3, 9), (4, 0), (5, 8)):
        search.tell((0, 0, config), loss)
    assert search.ask(2) == [(0, 1, 4), (0, 0, 6)]
    assert search.ask(2) == [(0, 0, 7), (0, 0, 8)]
    for config, loss in ((6, 7), (7, 6), (8, 5)):
        search.tell((0, 0, config), loss)
    assert search.ask(1) == [(0, 1, 2)]  # the best of all parts that is left


def test_waves_of_a_rung_that_they_do_not_divide() -> None:
    search = Search(waves=2)
    search.fill(4, ordered("4312"))  # half of nine, rounded down, for half of three, rounded down
    assert search.ask(2) == [(0, 1, 2), (0, 0, 4)]
    assert search.ask(4) == [(0, 0, 5), (0, 0, 6), (0, 0, 7), (0, 0, 8)]
    for config in range(4, 9):
        search.tell((0, 0, config), 9 - config)
    assert search.ask(3) == [(0, 1, 8), (0, 1, 3), (1, 0, 0)]


def test_after_the_widest_bracket_those_of_a_cycle_are_filled_by_turns() -> None:
    search = Search(waves=3)
    search.fill(9, {})
    assert search.ask(8) == [(1, 0, 0), (2, 0, 0), (1, 0, 1), (1, 0, 2), (2, 0, 1), (1, 0, 3), (1, 0, 4), (2, 0, 2)]
    assert search.ask(10) == [*((3, 0, config) for config in range(9)), (4, 0, 0)]  # the next cycle


def test_a_bracket_with_fewer_seats_than_waves_has_empty_waves_behind_it() -> None:
    search = Search(waves=4)
    search.fill(9, {})
    # Quarters of five seats end after 1, 2, 3 and 5, those of three after 0, 1, 2 and 3.
    assert search.ask(8) == [(1, 0, 0), (1, 0, 1), (2, 0, 0), (1, 0, 2), (2, 0, 1), (1, 0, 3), (1, 0, 4), (2, 0, 2)]


def test_brackets_that_were_filled_one_after_the_other_are_gone_on_with() -> None:
    search = Search()
    search.fill(9, {})
    search.fill(4, {}, bracket=1)
    search.policy = Policy(search.draw, waves=3)
    assert search.ask(5) == [(2, 0, 0), (2, 0, 1), (1, 0, 4), (2, 0, 2), (3, 0, 0)]


class TestReserved:
    """Once the remaining trials only suffice for promotions, the likeliest is taken instead of a new configuration."""

    def test_new_configurations_as_long_as_enough_are_left(self) -> None:
        search = Search(max_trials=14)
        search.fill(9, {})
        assert search.ask(1) == [(1, 0, 0)]  # 5 left, 4 reserved

    def test_a_running_configuration_if_no_rung_has_a_result(self) -> None:
        search = Search(max_trials=13)
        search.fill(9, {})
        assert search.ask(4) == [(0, 1, 0), (0, 1, 1), (0, 1, 2), (0, 2, 0)]

    def test_the_best_that_is_known_goes_before_those_that_run(self) -> None:
        search = Search(max_trials=13)
        search.fill(9, {4: 3.0, 5: 2.0})
        assert search.ask(3) == [(0, 1, 5), (0, 1, 4), (0, 1, 0)]

    def test_a_failed_configuration_is_no_candidate_and_no_reserve(self) -> None:
        search = Search(max_trials=13)
        search.fill(9, ordered("xxxxxxx--"))
        assert search.ask(1) == [(1, 0, 0)]  # two may go up to rung 1 and one to rung 2: 3 reserved, 4 left
        assert search.ask(3) == [(0, 1, 7), (0, 1, 8), (0, 2, 7)]

    def test_nothing_is_reserved_where_all_failed(self) -> None:
        search = Search(max_trials=13)
        search.fill(9, ordered("xxxxxxxxx"))
        assert search.ask(1) == [(1, 0, 0)]

    def test_the_rung_with_the_larger_share_of_results_goes_first(self) -> None:
        search = Search(max_trials=19)
        search.fill(9, {0: 1.0})
        search.fill(5, {1: 2.0, 2: 3.0}, bracket=1)
        # 2 of 5 results against 1 of 9; 5 left, 5 reserved.
        assert search.ask(2) == [(1, 1, 1), (0, 1, 0)]

    def test_among_equal_shares_the_promotion_to_the_largest_resource_goes_first(self) -> None:
        search = Search(max_trials=19)
        search.fill(9, {})
        search.fill(5, {}, bracket=1)
        assert search.ask(2) == [(1, 1, 0), (0, 1, 0)]  # to 9 units, then to 3

    def test_what_promotions_will_bring_counts_as_unknown(self) -> None:
        search = Search(max_trials=19)
        search.fill(9, ordered("12345678-"))
        assert search.ask(2) == [(0, 1, 0), (0, 1, 1)]
        search.fill(5, {0: 1.0, 1: 2.0, 2: 3.0}, bracket=1)
        search.tell((0, 1, 0), 4.0)
        # Known of rung 0: 8 of 9; of the next bracket: 3 of 5; of rung 1: 1 of 3, one of which is to come.
        assert search.ask(3) == [(0, 1, 2), (1, 1, 0), (0, 2, 0)]

    def test_the_last_trials_fill_the_seats_of_all_brackets(self) -> None:
        search = Search(max_trials=22)
        seats = []
        while len(search.trials) < 22:
            (seat,) = search.ask(1)
            seats.append(seat)
            search.tell(seat, float(seat[2]))
        expected = [(0, 0, config) for config in range(7)] + [(0, 1, 0), (0, 0, 7), (0, 1, 1), (0, 0, 8), (0, 1, 2)]
        assert seats[:13] == [*expected, (0, 2, 0)]
        assert sorted(seats[13:]) == [
            *((1, 0, config) for config in range(5)),
            (1, 1, 0),
            *((2, 0, c) for c in range(3)),
        ]

    def test_the_seats_that_are_left_are_reserved_whatever_their_number(self) -> None:
        search = Search(BracketPlan(1, 4, 2), max_trials=7)  # seats 4, 2, 1; 3, 1; 3
        search.fill(4, {})
        assert search.ask(1) == [(0, 1, 0)]
        assert search.ask(2) == [(0, 1, 1), (0, 2, 0)]  # one of two seats is left, and one above

    def test_the_resource_of_the_rung_above_counts_on_every_level(self) -> None:
        search = Search(BracketPlan(1, 8, 2), max_trials=15)  # seats 8, 4, 2, 1; 6, 3, 1
        search.fill(8, {})
        assert search.ask(6) == [*((0, 1, config) for config in range(4)), (0, 2, 0), (0, 2, 1)]
        search.policy = Policy(search.draw)
        search.fill(6, {}, bracket=1)
        search.policy = Policy(search.draw, max_trials=22)
        assert search.ask(2) == [(0, 3, 0), (1, 1, 0)]  # no rung has a result: to 8 units, then to 4
