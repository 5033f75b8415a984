"""Groups of weights and the optimizers' states."""

import pytest
import torch
from kondense.networks.build import NetworkSpec, build
from kondense.training.optimizers import make_optimizer
from kondense.training.settings import TrainingConfig
from torch import nn


class Net(nn.Module):
    """A norm over whole maps, a position embedding that does not decay, and two layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.LayerNorm([4, 8, 8])
        self.position = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.fc = nn.Linear(4, 3)

    def no_weight_decay(self):
        return {"position"}


def by_name(module, optimizer):
    names = {id(weight): name for name, weight in module.named_parameters()}
    return {names[id(weight)]: group for group in optimizer.param_groups for weight in group["params"]}


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_biases_norms_and_what_the_network_names_do_not_decay(name):
    module = Net()
    groups = by_name(module, make_optimizer(module, nn.Module(), TrainingConfig(optimizer=name, weight_decay=0.1)))
    assert {name for name, group in groups.items() if group["weight_decay"]} == {"conv.weight", "fc.weight"}
    assert set(groups) == {name for name, _ in module.named_parameters()}


def test_the_learning_rate_decays_from_the_last_layer_to_the_first():
    module = build(NetworkSpec("lenet5", {"classes": 10, "channels": 1, "image_size": 28}))
    groups = by_name(module, make_optimizer(module, nn.Module(), TrainingConfig(layer_decay=0.5)))
    found = {name: group["scale"] for name, group in groups.items()}
    expected = {"conv1": 0.125, "conv2": 0.25, "fc1": 0.5, "fc2": 1.0}
    assert found == {f"{layer}.{kind}": scale for layer, scale in expected.items() for kind in ("weight", "bias")}


def test_adamw_is_torchs():
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    config = TrainingConfig(optimizer="adamw", weight_decay=0.1)
    optimizer = make_optimizer(ours, nn.Module(), config)
    reference = torch.optim.AdamW(
        [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}], lr=1e-3
    )
    images = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        for module, each in ((ours, optimizer), (theirs, reference)):
            each.zero_grad()
            module(images).square().sum().backward()
            each.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 0.05),
        ({"optimizer": "adamw"}, 0.001),
        ({"optimizer": "adamw", "learning_rate": 0.3}, 0.3),
        ({"learning_rate": 0.2}, 0.2),
    ],
)
def test_the_default_rate_depends_on_the_optimizer_and_is_smaller_for_imported_weights(settings, rate):
    config = TrainingConfig(**settings)
    assert config.rate == pytest.approx(rate)
    given = "learning_rate" in settings
    assert config.for_imported().rate == pytest.approx(rate if given else rate / 10)


def test_a_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="must have weights to train, but has none"):
        make_optimizer(nn.Flatten(), nn.Module(), TrainingConfig())
