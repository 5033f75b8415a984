import pytest
from kondense.search.brackets import BracketPlan


def shape(plan: BracketPlan) -> list[list[tuple[int, int]]]:
    return [list(zip(bracket.sizes, bracket.resources, strict=True)) for bracket in plan.brackets]


def test_floor_is_table_1_of_the_paper() -> None:
    assert shape(BracketPlan(1, 81, 3, "floor")) == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(27, 3), (9, 9), (3, 27), (1, 81)],
        [(9, 9), (3, 27), (1, 81)],
        [(6, 27), (2, 81)],
        [(5, 81)],
    ]


def test_ceil_is_algorithm_1_of_the_paper() -> None:
    plan = BracketPlan(1, 81, 3)
    assert [bracket.sizes[0] for bracket in plan.brackets] == [81, 34, 15, 8, 5]
    assert shape(plan)[1] == [(34, 3), (11, 9), (3, 27), (1, 81)]
    assert shape(BracketPlan(1, 9, 3)) == [[(9, 1), (3, 3), (1, 9)], [(5, 3), (1, 9)], [(3, 9)]]
    assert BracketPlan(1, 9, 3).trials == 22


@pytest.mark.parametrize(
    ("most", "eta", "brackets"),
    [(243, 3, 6), (1000, 10, 4), (3**20, 3, 21), (125, 5, 4), (10**6, 10, 7), (242, 3, 5), (999, 10, 3), (1, 3, 1)],
)
def test_no_bracket_is_lost_to_rounding(most: int, eta: int, brackets: int) -> None:
    plan = BracketPlan(1, most, eta)
    assert len(plan.brackets) == brackets
    for bracket in plan.brackets:
        assert bracket.resources[-1] == most
        assert all(size >= 1 for size in bracket.sizes)
        assert list(bracket.resources) == sorted(set(bracket.resources))
    assert plan.brackets[0].resources[0] == most // eta ** (brackets - 1) >= 1


def test_a_resource_that_eta_does_not_divide_is_rounded_down() -> None:
    assert BracketPlan(1, 100, 3).brackets[0].resources == (1, 3, 11, 33, 100)
    assert BracketPlan(10, 100, 3, resource_low=10, resource_step=10).brackets[0].resources == (10, 30, 100)


def test_brackets_repeat() -> None:
    plan = BracketPlan(1, 9, 3)
    assert [plan.bracket(number).sizes for number in range(4)] == [(9, 3, 1), (5, 1), (3,), (9, 3, 1)]


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((0, 9, 3), "min_resource must be at least 1, but got 0"),
        ((10, 9, 3), "max_resource must be at least min_resource=10, but got 9"),
        ((1, 9, 1), "eta must be at least 2, but got 1"),
        ((1, 9, 3, "round"), "bracket_sizes must be one of ceil, floor, but got 'round'"),
        ((1, 9, 3, "ceil", 1, 8), "different resources.*step 8 gives 1, 1, 9"),
    ],
)
def test_a_broken_rule_is_named_with_its_value(arguments: tuple, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        BracketPlan(*arguments)
