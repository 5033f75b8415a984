import itertools

import pytest
import torch
from kondense.prune.allocation import Group, Layer, Part, allowed, choose_counts, smallest_counts, total_cost


def chain(channels=(16, 32, 24)):
    """A chain of fully connected layers a -> b -> c -> out over 10 inputs."""
    names = [*"abc", "out"]
    widths = [10, *channels, 4]
    layers = {name: Layer(widths[i + 1], widths[i], 1.0, 0.0) for i, name in enumerate(names)}
    generator = torch.Generator().manual_seed(0)
    groups = [
        Group(name, count, (Part(name, True, 1), Part(names[i + 1], False, 1)), torch.rand(count, generator=generator))
        for i, (name, count) in enumerate(zip("abc", channels, strict=True))
    ]
    return layers, groups


def test_total_cost_by_hand():
    layers, groups = chain()
    assert total_cost(layers, [], {}) == 10 * 16 + 16 * 32 + 32 * 24 + 24 * 4
    assert total_cost(layers, groups, {"a": 8, "b": 32, "c": 16}) == 10 * 8 + 8 * 32 + 32 * 16 + 16 * 4


def test_entries_count_the_positions_that_a_flattened_channel_has():
    layers = {"conv": Layer(6, 1, 25.0, 1.0), "fc": Layer(4, 6 * 9, 1.0, 1.0)}
    group = Group("conv", 6, (Part("conv", True, 1), Part("fc", False, 9)), torch.ones(6))
    assert total_cost(layers, [group], {"conv": 4}) == 4 * (25 + 1) + 4 * (4 * 9 + 1)


@pytest.mark.parametrize(
    ("count", "channels", "expected"),
    [
        (0, 20, 8),
        (11.9, 20, 8),
        (12, 20, 16),
        (17.9, 20, 16),
        (18.1, 20, 20),
        (25, 20, 20),
        (3, 6, 6),
        (0, 8, 8),
        (0, 9, 8),
    ],
)
def test_allowed_counts_are_multiples_or_all(count, channels, expected):
    assert allowed(count, channels, 8) == expected


def test_without_rounding_one_channel_is_kept():
    assert [allowed(count, 5, 1) for count in (0, 0.4, 0.6, 2.4, 5)] == [1, 1, 1, 2, 5]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.3])
def test_meets_the_budget_and_wastes_no_multiple(scope, fraction):
    layers, groups = chain((32, 64, 48))
    budget = fraction * total_cost(layers, [], {})

    def cost(counts):
        return total_cost(layers, groups, counts)

    counts = choose_counts(groups, cost, budget, scope=scope, round_to=8)
    assert cost(counts) <= budget
    assert all(counts[group.name] % 8 == 0 for group in groups)
    possible = [range(8, group.channels + 1, 8) for group in groups]
    best = max(
        cost(dict(zip("abc", tried, strict=True)))
        for tried in itertools.product(*possible)
        if cost(dict(zip("abc", tried, strict=True))) <= budget
    )
    assert cost(counts) > 0.75 * best
    for group in groups:  # nothing that fits is left out
        assert counts[group.name] == group.channels or cost(counts | {group.name: counts[group.name] + 8}) > budget


def test_what_rounding_leaves_of_the_budget_does_not_all_go_to_the_cheapest_group():
    groups = [Group(name, 64, (), torch.ones(64)) for name in ("dear", "cheap")]
    # Half of each would cost 3200 + 32; 24 dear ones leave 32 * 100 - 2400 = 800, which would pay for all cheap ones.
    counts = choose_counts(
        groups, lambda counts: 100 * counts["dear"] + counts["cheap"], 3200, scope="layer", round_to=8
    )
    assert counts == {"dear": 24, "cheap": 32}


def test_the_same_fraction_of_each_layer_when_nothing_is_rounded():
    layers, groups = chain((100, 200, 300))
    counts = choose_counts(groups, lambda counts: sum(counts.values()), 300, scope="layer", round_to=1)
    assert counts == {"a": 50, "b": 100, "c": 150}


def test_global_scope_takes_channels_that_are_low_within_their_group():
    def group(name, scores):
        return Group(name, 4, (), torch.tensor(scores))

    # Relative to their means: a has two at 0.2, b none below 1; scale alone must not count.
    groups = [group("a", [100.0, 100.0, 900.0, 900.0]), group("b", [0.1, 0.1, 0.1, 0.1])]
    counts = choose_counts(groups, lambda counts: sum(counts.values()), 6, scope="global", round_to=1)
    assert counts == {"a": 2, "b": 4}


def test_a_group_with_its_own_sparsity_takes_no_part():
    _, (a, b, c) = chain((32, 64, 48))
    fixed = Group(b.name, 64, b.parts, b.scores, sparsity=0.25)
    counts = choose_counts([a, fixed, c], lambda counts: sum(counts.values()), 80, scope="layer", round_to=8)
    assert counts["b"] == 48
    assert sum(counts.values()) <= 80
    assert smallest_counts([a, fixed, c], 8) == {"a": 8, "b": 48, "c": 8}


def test_a_budget_out_of_reach_gives_the_smallest_counts():
    _, groups = chain()
    counts = choose_counts(groups, lambda counts: sum(counts.values()), 1, scope="global", round_to=8)
    assert counts == {"a": 8, "b": 8, "c": 8}


@pytest.mark.parametrize(
    ("count", "channels", "round_to", "expected"),
    [
        (50, 50, 8, 48),
        (49, 50, 8, 48),
        (26, 50, 8, 24),
        (50, 50, 1, 50),
        (500, 500, 8, 500),
        (6, 6, 8, 6),
        (2, 25, 4, 4),
    ],
)
def test_all_channels_are_kept_only_if_int8_layers_of_that_width_are_right_everywhere(
    count, channels, round_to, expected
):
    assert allowed(count, channels, round_to) == expected
