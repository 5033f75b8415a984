import pytest
import torch
from kondense.training.schedules import SCHEDULES, learning_rate
from kondense.training.settings import SCHEDULES as NAMES
from kondense.training.settings import TrainingConfig
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR


def rates(scheduler_class, **arguments):
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = scheduler_class(optimizer, **arguments)
    found = []
    for _ in range(20):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("multistep", rates(MultiStepLR, milestones=[10, 15], gamma=0.1)),
        ("cosine", rates(CosineAnnealingLR, T_max=20)),
        ("constant", [0.2] * 20),
    ],
)
def test_equals_torch_schedulers(name, reference):
    config = TrainingConfig(epochs=20, schedule=name, learning_rate=0.2, warmup_epochs=0.0)
    assert [learning_rate(config, epoch) for epoch in range(20)] == pytest.approx(reference)


def test_depends_on_the_horizon_only():
    short, long = TrainingConfig(epochs=3, max_epochs=27), TrainingConfig(epochs=27)
    assert [learning_rate(short, epoch / 4) for epoch in range(12)] == [
        learning_rate(long, epoch / 4) for epoch in range(12)
    ]


def test_warm_up_rises_linearly_from_near_zero():
    config = TrainingConfig(epochs=10, schedule="constant", learning_rate=1.0, warmup_epochs=2.0)
    assert learning_rate(config, 0.0) < 0.001
    assert learning_rate(config, 1.0) == pytest.approx(0.5, abs=0.001)
    assert learning_rate(config, 2.0) == 1.0


def test_every_named_schedule_exists():
    assert set(SCHEDULES) == set(NAMES)
    assert all(0.0 <= schedule(progress / 10) <= 1.0 for schedule in SCHEDULES.values() for progress in range(11))
