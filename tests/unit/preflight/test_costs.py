"""What a step will take, from one of its training steps, against what is known of the network by hand."""

import dataclasses

import pytest
import torch
from kondense.preflight.costs import Estimate, Probe, Sizes, StepCost, estimate
from kondense.preflight.examine import quick
from kondense.preflight.images import random_dataset
from kondense.prune.config import PruneConfig
from kondense.train.config import TrainConfig
from kondense.training.fit import fit
from kondense.training.probe import probed
from kondense.training.settings import TrainingConfig
from torch import nn

PIXELS, HIDDEN, CLASSES = 3 * 8 * 8, 50, 10


def measured(config: TrainingConfig) -> StepCost:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, HIDDEN), nn.Sigmoid(), nn.Linear(HIDDEN, CLASSES))
    probe = Probe(config.batch_size)
    with probed(probe):
        fit(network, random_dataset((3, 8, 8), CLASSES), quick(config))
    (cost,) = probe.costs
    return cost


@pytest.mark.parametrize("batch_size", [16, 100, 4096])
def test_what_the_backward_pass_needs_is_that_of_a_batch(batch_size: int) -> None:
    saved = measured(TrainConfig(batch_size=batch_size)).saved_bytes
    # The images, the output of the sigmoid, the logarithms of the softmax, and labels of 8 bytes.
    expected = batch_size * (4 * (PIXELS + HIDDEN + CLASSES) + 8)
    assert expected <= saved <= expected + 1000


@pytest.mark.parametrize(("optimizer", "states"), [("sgd", 1), ("adamw", 2)])
def test_weights_gradients_and_states_are_counted(optimizer: str, states: int) -> None:
    cost = measured(TrainConfig(optimizer=optimizer, averaging=0.9))
    parameters = PIXELS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
    expected = 4 * parameters * (1 + 1 + 1 + states)  # weights, gradients, the average
    assert expected <= cost.state_bytes <= expected + 100


def test_the_cost_of_an_epoch_is_that_of_its_steps() -> None:
    cost = StepCost(seconds=0.5, forward_s=0.001, saved_bytes=7_000, largest_bytes=1_000_000, state_bytes=40)
    config, sizes = TrainConfig(epochs=8, batch_size=100), Sizes(train=1050, validation=200, test=50)
    kwargs = {"process_bytes": 1_000, "models": {}, "tried_s": 3.0}
    found = estimate(config, [cost], (3, 8, 8), sizes, **kwargs)
    assert found.seconds == pytest.approx(3.0 + 8 * (10 * 0.5 + 200 * 0.001))
    assert found.memory_bytes == 1_000 + 40 + 7_000 + 2_000_000 + 1300 * PIXELS
    doubled = estimate(config, [cost, cost], (3, 8, 8), sizes, **kwargs)  # each budget is trained twice, as by lottery
    assert doubled.seconds == pytest.approx(3.0 + 2 * (found.seconds - 3.0))
    both = estimate(dataclasses.replace(config, devices=2), [cost], (3, 8, 8), sizes, **kwargs)
    assert both.seconds == found.seconds
    assert both.memory_bytes == 3 * 1_000 + 2 * (40 + 3_500 + 1_000_000 + 1300 * PIXELS)
    unknown = estimate(config, [cost], (3, 8, 8), None, **kwargs)
    assert (unknown.seconds, unknown.memory_bytes) == (0.0, found.memory_bytes - 1300 * PIXELS)


def test_a_step_that_trains_nothing_has_no_estimate() -> None:
    kwargs = {"process_bytes": 1_000, "models": {}, "tried_s": 3.0}
    assert estimate(PruneConfig(), [], (3, 8, 8), Sizes(10, 5, 5), **kwargs) == Estimate()


def test_nothing_is_measured_outside_of_the_block() -> None:
    probe = Probe(8)
    with probed(probe):
        pass
    config = quick(dataclasses.replace(TrainConfig(), batch_size=8))
    fit(nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES)), random_dataset((3, 8, 8), CLASSES), config)
    assert probe.costs == []
