"""Networks that only this process knows: built again with weights drawn anew, and known by what they compute."""

import copy
import gc
import logging

import pytest
import torch
from kondense.artifacts.model import Model
from kondense.errors import InputError
from kondense.networks.build import NetworkSpec, build
from kondense.networks.memory import difference_of, network_spec_of
from torch import Tensor, nn


def scaled(images: Tensor) -> Tensor:
    return 2 * images


def make(kind: str = "relu", inputs: int = 3) -> nn.Module:
    """Return a network as a notebook has them: a class that nothing can import, with an argument and an own weight."""

    class Net(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(features, 64), nn.BatchNorm1d(64), nn.Linear(64, 2))
            self.shift = nn.Parameter(torch.full((1, 2), 5.0))

        if kind == "relu":

            def forward(self, images: Tensor) -> Tensor:
                return torch.relu(self.layers(scaled(images))) + self.shift
        else:

            def forward(self, images: Tensor) -> Tensor:
                return torch.tanh(self.layers(scaled(images))) + self.shift

    return Net(inputs)


def test_a_held_network_is_built_with_weights_drawn_anew_from_the_seed() -> None:
    module = make()
    before = copy.deepcopy(module.state_dict())
    spec = network_spec_of(module)
    first, again, other = build(spec, seed=1), build(spec, seed=1), build(spec, seed=2)
    assert difference_of(first, module) == ""
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert torch.equal(module.state_dict()[name], before[name])
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)
    assert first.layers[0].weight.abs().max().item() <= 3**-0.5  # as nn.Linear draws them
    assert first.shift.mean() == 5.0  # both of its values were


def test_the_same_code_has_the_same_name_and_other_code_another(monkeypatch: pytest.MonkeyPatch) -> None:
    name = network_spec_of(make()).name
    assert name.startswith("in-memory:Net-")
    assert network_spec_of(make()).name == name
    assert network_spec_of(make("tanh")).name != name
    assert network_spec_of(make(inputs=4)).name != name
    monkeypatch.setattr(scaled, "__code__", (lambda images: 3 * images).__code__)
    assert network_spec_of(make()).name != name


def test_a_network_lives_as_long_as_something_names_it() -> None:
    spec = network_spec_of(make())
    derived = NetworkSpec(spec.name, {"classes": 2})
    del spec
    gc.collect()
    build(derived)
    name = derived.name
    del derived
    gc.collect()
    with pytest.raises(InputError, match=f"network '{name}' was given in memory, but not to this process"):
        build(NetworkSpec(name, {}))


def test_the_log_says_why_it_cannot_be_saved(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="kondense"):
        network_spec_of(nn.Sequential(nn.Linear(3, 2)))
    assert "can be used but not saved: no code is known that builds this Sequential; put the code" in caplog.text


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    module.scratch = torch.ones(2, requires_grad=True) * 2  # no leaf of the graph
    with pytest.raises(InputError, match="must allow copy.deepcopy, but Sequential does not: Only Tensors created"):
        Model(module)


def test_the_output_of_a_held_network_is_named_by_its_key() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"coarse": self.first(images), "fine": self.second(images)}

    network, images = Both().eval(), torch.rand(3, 4)
    model = Model(network, "#fine")
    assert torch.equal(model.module(images), network(images)["fine"])
    assert build(model.network).eval()(images).shape == (3, 2)
