"""What a step will take, from one of its training steps, against what is known of the network by hand."""

import dataclasses
import types
from typing import Any

import pytest
import torch
from kondense.data.at_once import at_once
from kondense.data.dataset import Dataset
from kondense.data_prep.config import DataPrepConfig
from kondense.errors import InputError
from kondense.evaluate.config import EvaluateConfig
from kondense.preflight import costs, examine
from kondense.preflight.costs import START_S, Estimate, Probe, RunImages, Sizes, StepCost, Trial, estimate
from kondense.preflight.examine import Estimator, Timed, quick
from kondense.preflight.images import random_dataset
from kondense.preflight.request import Request
from kondense.quantize.config import QuantizeConfig
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
    # On a busy machine a smaller batch is measured, and its few bytes of scalars are scaled, too.
    assert expected <= saved <= 1.01 * expected + 1000


@pytest.mark.parametrize(("optimizer", "states"), [("sgd", 1), ("adamw", 2)])
def test_weights_gradients_and_states_are_counted(optimizer: str, states: int) -> None:
    cost = measured(TrainConfig(optimizer=optimizer, averaging=0.9))
    parameters = PIXELS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES
    expected = 4 * parameters * (1 + 1 + 1 + states)  # weights, gradients, the average
    assert expected <= cost.state_bytes <= expected + 100


SHAPE, SIZES = (3, 8, 8), Sizes(train=1050, validation=200, test=50)
COST = StepCost(seconds=0.5, forward_s=0.001, saved_bytes=7_000, largest_bytes=1_000_000, state_bytes=40)
TRIAL = Trial([COST], seconds=3.0, forward_s=0.0, process_bytes=1_000, shared_bytes=0)


def estimated(config: TrainingConfig, images: RunImages | None = None, **values: Any) -> Estimate:
    return estimate(config, images or RunImages(SHAPE, SIZES), dataclasses.replace(TRIAL, **values), {})


def test_the_cost_of_an_epoch_is_that_of_its_steps() -> None:
    config = TrainConfig(epochs=8, batch_size=100)
    found = estimated(config)
    assert found.seconds == pytest.approx(START_S + 3.0 + 8 * (10 * 0.5 + 200 * 0.001))
    assert found.memory_bytes == 1_000 + 40 + 7_000 + 2_000_000 + 1300 * PIXELS
    doubled = estimated(config, costs=[COST, COST])  # each budget is trained twice, as by lottery
    assert doubled.seconds == pytest.approx(START_S + 3.0 + 2 * (found.seconds - START_S - 3.0))
    unknown = estimated(config, RunImages(SHAPE, None))
    assert (unknown.seconds, unknown.memory_bytes) == (0.0, found.memory_bytes - 1300 * PIXELS)
    shards = estimated(config, RunImages(SHAPE, SIZES, in_memory=False))
    assert shards == Estimate(found.seconds, found.memory_bytes - 1300 * PIXELS)


def test_other_work_makes_the_start_of_a_step_longer_as_it_did_in_the_trial() -> None:
    config = TrainConfig(epochs=8, batch_size=100)
    assert estimated(config, busy=3.0).seconds == pytest.approx(estimated(config).seconds + 2 * START_S)
    config = QuantizeConfig(method="static")
    idle = estimated(config, costs=[])
    assert estimated(config, costs=[], busy=3.0).seconds == pytest.approx(idle.seconds + 2 * START_S)


def test_what_steps_of_all_sizes_take_alike_is_not_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of many small layers: 0.4 s of a step whatever its size, and 0.01 s for each image."""
    sizes = []

    def step(training: Any, batch: tuple[torch.Tensor, ...]) -> tuple[float, Any]:
        sizes.append(len(batch[0]))
        return 0.4 + 0.01 * len(batch[0]), types.SimpleNamespace(total=100 * len(batch[0]), largest=10)

    monkeypatch.setattr(costs, "timed_step", step)
    monkeypatch.setattr(costs, "forward_seconds", lambda *arguments: 0.001)
    monkeypatch.setattr(costs, "state_bytes", lambda training: 0)
    training: Any = types.SimpleNamespace(module=None, dataset=None, device=None)
    batch = (torch.arange(16), torch.zeros(16, 1, 1, 1), torch.zeros(16))
    found = costs.step_cost(training, batch, 128)
    assert found.seconds == pytest.approx(0.4 + 0.01 * 128)
    assert found.saved_bytes == 100 * 128
    assert sizes == [16, 8, 8]


def test_noise_makes_no_image_free_or_dearer_than_in_a_batch() -> None:
    assert costs.extrapolated(0.5, 0.4, 8, 16, 32) == pytest.approx(0.4 + 16 * 0.1 * 0.4 / 16)
    assert costs.extrapolated(0.01, 0.4, 8, 16, 32) == pytest.approx(0.8)


def test_the_memory_of_several_devices_is_that_of_all_processes() -> None:
    config = TrainConfig(epochs=8, batch_size=100, devices=2)
    each = 40 + 3_500 + 2 * 500_000 + 1300 * PIXELS
    programs = estimated(config)  # on GPUs, with the one that starts them
    assert programs.seconds == estimated(dataclasses.replace(config, devices=1)).seconds
    assert programs.memory_bytes == 3 * 1_000 + 2 * each
    assert estimated(config, shared_bytes=900).memory_bytes == 900 + 2 * (100 + each)  # forks


@pytest.mark.parametrize(
    ("method", "asked", "images"), [("static", 256, 256), ("static", 5000, 1050), ("weight_only", 256, 0)]
)
def test_a_step_that_trains_nothing_sees_its_calibration_images_and_the_validation_before_and_after(
    method: str, asked: int, images: int
) -> None:
    config = QuantizeConfig(method=method, calibration_images=asked)
    found = estimated(config, costs=[], forward_s=0.01)
    assert found.seconds == pytest.approx(START_S + 3.0 + (images + 2 * 200) * 0.01)
    assert found.memory_bytes == 1_000 + 1300 * PIXELS + 4 * PIXELS * at_once(SHAPE)
    assert estimate(EvaluateConfig(), RunImages(SHAPE, SIZES), TRIAL, {}) == Estimate()


def test_nothing_is_measured_outside_of_the_block() -> None:
    probe = Probe(8)
    with probed(probe):
        pass
    config = quick(dataclasses.replace(TrainConfig(), batch_size=8))
    fit(nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES)), random_dataset((3, 8, 8), CLASSES), config)
    assert probe.costs == []


def test_what_measuring_takes_is_no_part_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, trials = [0.0], []

    def step_cost(*arguments: Any) -> StepCost:
        clock[0] += 40.0
        return COST

    monkeypatch.setattr(costs, "step_cost", step_cost)
    for module in (costs, examine):
        times = types.SimpleNamespace(monotonic=lambda: clock[0], process_time=lambda: clock[0] / 3)
        monkeypatch.setattr(module, "time", times)
    monkeypatch.setattr(examine, "estimate", lambda config, images, trial, models: trials.append(trial) or Estimate())
    few = random_dataset(SHAPE, CLASSES)
    with Estimator(RunImages(SHAPE, SIZES), few)(Timed("train"), TrainConfig(), {}):
        clock[0] += 2.0
        fit(nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES)), few, quick(TrainConfig()))
    (trial,) = trials
    assert (trial.seconds, trial.costs) == (2.0, [COST])
    assert trial.busy == pytest.approx(3.0)


def test_a_tiny_network_is_trained_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first training of a process loads what a run's server has loaded: 14 s beside much other work."""
    order = []

    def train(teacher: None, dataset: Dataset, config: TrainConfig) -> None:
        order.append(config.network)
        raise InputError("enough")

    monkeypatch.setattr(examine, "train", train)
    monkeypatch.setattr(examine, "warm_up", lambda: order.append("tiny"))
    data = DataPrepConfig(dataset_name="digits").to_dict()
    request = Request(data_prep=data, train=TrainConfig(network="resnet8").to_dict(), candidates={}, asked=[])
    assert [check.refused for check in examine.examine(request)] == [False, True]
    assert order == ["tiny", "resnet8"]
