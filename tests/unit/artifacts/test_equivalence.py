"""The guard of transformations: it tells rounding from another function, and names what it leaves out."""

import copy
import logging

import pytest
import torch
from kondense.artifacts.equivalence import check_same, difference, outputs, preserving, probes
from torch import Tensor, nn

BATCHES = probes((1, 4, 4), torch.rand(5, 1, 4, 4))


class Counting(nn.Module):
    """Outputs in a dictionary, noise in evaluation mode, and a data type of its own inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        hidden = nn.functional.dropout(images.flatten(1), training=True)
        return {"out": (self.fc(hidden.float()), hidden)}


def scaled(module: nn.Module, factor: float) -> nn.Module:
    changed = copy.deepcopy(module)
    with torch.no_grad():
        next(changed.parameters()).mul_(factor)
    return changed


@pytest.mark.parametrize("module", [Counting(), nn.Sequential(nn.Flatten(), nn.Linear(16, 3))])
def test_another_function_shows_and_rounding_does_not(module: nn.Module) -> None:
    module.train()
    assert difference(module, copy.deepcopy(module), BATCHES) == 0.0
    assert difference(module, scaled(module, 1 + 1e-7), BATCHES) == 0.0
    assert difference(module, scaled(module, 1.01), BATCHES) > 1e-3
    assert module.training


def test_sums_in_another_order_are_rounding() -> None:
    torch.manual_seed(0)
    order = torch.randperm(5000)
    one = nn.Sequential(nn.Flatten(), nn.Linear(16, 5000), nn.Linear(5000, 2))
    other = copy.deepcopy(one)
    with torch.no_grad():
        for part in (other[1].weight, other[1].bias):
            part.copy_(part[order])
        other[2].weight.copy_(other[2].weight[:, order])
    assert difference(one, other, BATCHES) == 0.0


def test_what_no_longer_runs_is_another_function() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    assert difference(module, nn.Sequential(nn.Flatten(), nn.Linear(15, 3)), BATCHES) == float("inf")
    with pytest.raises(ValueError, match="removing channels of fc must not .* the network no longer runs; exclude fc"):
        check_same("removing channels of fc", module, nn.Linear(15, 3), BATCHES, remedy="exclude fc")


def test_batches_that_the_network_cannot_take_are_left_out() -> None:
    class OneByOne(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.view(1, 16)

    assert difference(OneByOne(), OneByOne(), BATCHES) == 0.0
    assert difference(OneByOne(), nn.Sequential(nn.Flatten(), nn.Linear(16, 16)), BATCHES) > 0.1


def test_the_edits_that_change_outputs_are_left_out_by_name(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Linear(3, 3))

    def negate(changed: nn.Module, edits: list[str]) -> None:
        for name in edits:
            part = changed.get_submodule(name)
            part.weight.data *= 2.0 if name == "2" else 1.0

    with caplog.at_level(logging.WARNING, "kondense"):
        assert preserving("doubling", module, ["1", "2"], negate, BATCHES) == ["1"]
    assert "doubling 2 is left out: changes them by" in caplog.text


def test_random_numbers_are_those_of_the_seed() -> None:
    module = Counting()
    (first, _), (second, _) = (outputs(module, BATCHES[0]) for _ in range(2))
    assert torch.equal(first, second)
