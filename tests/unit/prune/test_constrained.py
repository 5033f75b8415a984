import itertools

import pytest
import torch
from kondense.prune.config import PruneConfig
from kondense.prune.masks import constrained
from kondense.prune.masks.constrained import Lagrangian, project
from kondense.training.fit import fit
from kondense.training.settings import TrainingConfig
from torch import nn

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

SHAPE = (2, 2, 1, 2)  # 8 weights: 4 kernels of 2, 2 neurons of 4


def draw(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(granularity):
    """The positions of every unit among the 8 weights."""
    size = {"weights": 1, "kernels": 2, "neurons": 4}[granularity]
    return [list(range(first, first + size)) for first in range(0, 8, size)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("granularity", "budget"), [("weights", 3), ("weights", 7), ("kernels", 2), ("neurons", 1)])
def test_the_projection_is_the_best_of_all_by_brute_force(granularity, budget, seed):
    """Every choice of units within the budget, each with the factors that least squares gives it."""
    weight, original = draw(seed), draw(seed + 100)
    best = float("inf")
    for chosen in itertools.combinations(units(granularity), budget):
        columns = torch.zeros(8, budget, dtype=torch.float64)
        for column, unit in enumerate(chosen):
            columns[unit, column] = original.flatten()[unit]
        factors = torch.linalg.lstsq(columns, weight.flatten()).solution
        best = min(best, float((weight.flatten() - columns @ factors).square().sum()))
    found = project(weight, original, budget, granularity)
    assert float((weight - found).square().sum()) == pytest.approx(best, rel=1e-9)
    ratios = found.flatten() / original.flatten()
    for unit in units(granularity):
        torch.testing.assert_close(ratios[unit], ratios[unit[:1]].expand(len(unit)))
    assert sum(bool(ratios[unit[0]] != 0) for unit in units(granularity)) <= budget


def test_a_unit_that_was_zero_stays_zero():
    original = draw(1)
    original[0, 0] = 0.0
    found = project(draw(2), original, 4, "kernels")
    assert torch.equal(found[0, 0], original[0, 0])
    assert torch.isfinite(found).all()


def quadratic(seed):
    """A strongly convex problem with 8 unknowns: 1/2 x'Ax - b'x."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(8, 8, generator=generator)
    matrix = root @ root.T / 8 + torch.eye(8)
    return matrix, matrix @ torch.randn(8, generator=generator)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_the_alternation_finds_the_constrained_minimum_of_a_quadratic_by_brute_force(seed):
    matrix, vector = quadratic(seed)

    def value(weights):
        return float(0.5 * weights @ matrix @ weights - vector @ weights)

    values = {}
    for chosen in itertools.combinations(range(8), 3):
        index = list(chosen)
        weights = torch.zeros(8)
        weights[index] = torch.linalg.solve(matrix[index][:, index], vector[index])
        values[chosen] = value(weights)
    weight = nn.Parameter(torch.linalg.solve(matrix, vector).reshape(1, 8))
    lagrangian = Lagrangian(
        lambda *ignored: 0.5 * weight[0] @ matrix @ weight[0] - vector @ weight[0],
        {"w": weight},
        {"w": 3},
        PruneConfig(method="constrained", penalty=0.1, penalty_growth=1000.0),
    )
    optimizer = torch.optim.SGD([weight], lr=0.02)
    for step in range(6000):
        lagrangian.begin(torch.zeros(1), step / 6000)
        optimizer.zero_grad()
        lagrangian(torch.zeros(1), torch.zeros(1), torch.zeros(1)).backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.5 / (5.0 + float(lagrangian.mu))
        optimizer.step()
    lagrangian.update(100.0)
    support = tuple(lagrangian.target("w")[0].nonzero().flatten().tolist())
    assert len(support) == 3
    ranking = sorted(values, key=values.get)
    assert support in ranking[:2]  # of 56; magnitude pruning of the unconstrained minimum is often worse
    assert value(lagrangian.target("w")[0].detach()) == pytest.approx(values[support], rel=0.02, abs=0.02)


def network():
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def request(**settings):
    config = PruneConfig(
        **{"method": "constrained", "epochs": 3, "batch_size": 32, "learning_rate": 0.01, "device": "cpu"} | settings
    )
    return make_context(config, toy_dataset())


@pytest.mark.parametrize("granularity", ["weights", "kernels", "neurons"])
def test_budgets_are_met_exactly(granularity):
    module = network()
    settings = {"scope": "layer", "sparsity": 0.5, "granularity": granularity}
    method = constrained.prepare(module, request(**settings))
    masks = method.step(1.0)
    for name, mask in masks.items():
        assert int(mask.sum()) == mask.numel() // 2
        assert torch.equal(module.get_parameter(name) != 0, mask)
        if granularity == "neurons" or (granularity == "kernels" and mask.ndim > 2):
            kinds = mask.flatten(1 if granularity == "neurons" else 2)
            assert torch.equal(kinds.all(-1), kinds.any(-1))
    assert len(masks) == (2 if granularity == "neurons" else 3)


def test_the_penalty_pulls_the_weights_into_the_budget():
    """The harder the pull, the less is lost when the projection is taken at last."""
    gaps = []
    for penalty in (1e-4, 1.0):
        module, asked = network(), request(sparsity=0.8, penalty=penalty, penalty_growth=10.0)
        weights = {name: module.get_parameter(name) for name in ("3.weight",)}
        lagrangian = Lagrangian(asked.session.loss, weights, {"3.weight": 100}, asked.config)
        fit(
            module,
            asked.dataset,
            TrainingConfig(epochs=6, batch_size=8, learning_rate=0.02, device="cpu"),
            loss=lagrangian,
        )
        lagrangian.to("cpu").update(1.0)
        weight = module.get_parameter("3.weight").detach()
        gaps.append(
            float((weight - project(weight, lagrangian.get_buffer("original/3/weight"), 100, "weights")).norm())
        )
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"steps": 2}, "steps must be 0 or 1 with constrained, .* but got 2"),
        ({"epochs": 1}, "epochs must be at least 2 with constrained .*, but got 1"),
        ({"scope": "layer", "sparsity": 0.99}, r"'5' can lose at most 0.958333 of its 24 weights, but got 0.99"),
    ],
)
def test_what_cannot_be_met_is_refused(settings, rule):
    with pytest.raises(ValueError, match=rule):
        constrained.prepare(network(), request(**settings))


def test_tried_at_other_sparsities_it_would_train_each_time():
    for settings in ({"sensitivity": True}, {"max_validation_drop": 0.01}):
        with pytest.raises(ValueError, match="sensitivity and max_validation_drop need .* but got constrained"):
            PruneConfig(method="constrained", **settings)
