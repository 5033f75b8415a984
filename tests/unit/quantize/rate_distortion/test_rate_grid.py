import pytest
import torch
from kondense.quantize.rate_distortion.grid import CHOOSE_EVERY, RAMP, RateGrid, RateObjective
from kondense.quantize.rate_distortion.rate_model import best_integers, measure_rates
from torch import nn
from torch.nn.utils import parametrize


def layer_on_grid(step=0.1, rate_weight=0.2):
    torch.manual_seed(0)
    layer = nn.Linear(30, 20)
    grid = RateGrid(layer.weight, step, rate_weight)
    parametrize.register_parametrization(layer, "weight", grid, unsafe=True)
    return layer, grid


def test_the_weight_is_on_the_grid_and_the_gradient_passes():
    layer, grid = layer_on_grid()
    layer.eval()
    integers = grid.integers(layer.parametrizations.weight.original)
    assert torch.equal(layer.weight, integers * 0.1)
    assert 0 < int((integers != 0).sum()) < integers.numel()
    factors = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    (layer.weight * factors).sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, factors)


def test_choosing_again_prices_integers_by_those_chosen_before():
    layer, grid = layer_on_grid(step=0.05, rate_weight=0.5)
    weight = layer.parametrizations.weight.original.detach().clone()
    weight[5:] *= 0.1
    expected = grid.integers(weight)
    for _ in range(2):
        rates = measure_rates(expected)
        expected = best_integers(weight / 0.05, rates, 0.5)
    assert torch.equal(grid.integers(weight, rounds=3), expected)


def test_which_weights_are_zero_is_chosen_every_few_steps_and_they_may_come_back():
    layer, grid = layer_on_grid()
    objective = RateObjective(lambda logits, labels, images: logits.sum(), [grid], 1.0)
    layer.train()
    original = layer.parametrizations.weight.original
    for step in range(2 * CHOOSE_EVERY):
        objective.begin(torch.arange(4), step / 100)
        weight = layer.weight
        if step == 0:
            zero = (weight == 0).nonzero()[0]
            with torch.no_grad():
                original[tuple(zero)] = 1.0
        assert (weight[tuple(zero)] != 0) == (step >= CHOOSE_EVERY)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.1), (RAMP / 2, 0.55), (RAMP, 1.0), (0.9, 1.0)])
def test_the_grid_grows_coarser_over_the_training(progress, share):
    _, grid = layer_on_grid()
    RateObjective(lambda *_: torch.zeros(()), [grid], 0.1).begin(torch.arange(4), progress)
    assert grid.share == pytest.approx(share)


def test_position_and_rates_are_part_of_a_checkpoint():
    layer, grid = layer_on_grid()
    objective = RateObjective(lambda *_: torch.zeros(()), [grid], 0.5)
    layer.train()
    for _ in range(3):
        objective.begin(torch.arange(4), 0.1)
        assert layer.weight.shape == (20, 30)
    other, fresh = layer_on_grid()
    other.load_state_dict(layer.state_dict())
    resumed = RateObjective(lambda *_: torch.zeros(()), [fresh], 0.5)
    resumed.load_state_dict(objective.state_dict())
    for each in (objective, resumed):
        each.begin(torch.arange(4), 0.2)
    assert torch.equal(other.train().weight, layer.weight)
    assert (fresh.choosing, fresh.measuring, fresh.share) == (grid.choosing, grid.measuring, grid.share)


def test_a_loss_that_follows_the_run_is_told_of_every_step():
    told = []

    class Inner(RateObjective):
        def begin(self, index_B, progress):
            told.append(progress)

    objective = RateObjective(Inner(lambda *_: torch.ones(()), [], 1.0), [], 1.0)
    objective.begin(torch.arange(2), 0.25)
    assert told == [0.25]
    assert float(objective(torch.zeros(1), torch.zeros(1), torch.zeros(1))) == 1.0
