"""Transposed convolutions lose inputs and outputs; what is left computes what it does with channels zeroed by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from kondense.artifacts.structure import apply_edits, find_edits
from kondense.channels.dependencies import find_groups
from kondense.channels.surgery import remove, side_length
from kondense.distill.inheritance import narrow
from kondense.measuring.size import count_macs
from kondense.prune.costs import layer_costs
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

SHAPE = (3, 16, 16)


class UNet(nn.Module):
    """Up by transposed convolutions: plain, in groups, and depthwise with two outputs for each input."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.up, self.norm = nn.ConvTranspose2d(32, 12, 2, 2, bias=False), nn.BatchNorm2d(12)
        self.join = nn.Conv2d(28, 16, 3, padding=1)
        self.grouped = nn.ConvTranspose2d(16, 24, 3, 2, 1, output_padding=1, groups=4)
        self.depthwise = nn.ConvTranspose2d(24, 48, 2, 2, groups=24)
        self.last = nn.Conv2d(48, 10, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        down = F.relu(self.down(images))
        up = self.norm(self.up(F.relu(self.deep(F.max_pool2d(down, 2)))))
        joined = F.relu(self.join(torch.cat([down, up], 1)))
        return self.last(F.relu(self.depthwise(F.relu(self.grouped(joined))))).mean((2, 3))


class Own(nn.Module):
    """Transposed convolutions whose weights the network holds itself, one of them depthwise with two outputs each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(5, 10)
        self.wide, self.kernel = nn.Parameter(torch.randn(8, 2, 2, 2)), nn.Parameter(torch.randn(16, 5, 2, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = F.conv_transpose2d(self.first(images), self.wide, stride=2, groups=self.first.out_channels)
        return self.fc(F.conv_transpose2d(maps.relu(), self.kernel, None, 2).mean((2, 3)))


def seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = kind()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
    return module.eval()


def images() -> torch.Tensor:
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))


def without(module: nn.Module, gone: dict[str, list[int]]) -> torch.Tensor:
    """Return the outputs with channels of some layers' outputs set to zero as they pass."""

    def silent(channels: list[int]):
        return lambda _, __, output: output.index_fill(1, torch.tensor(channels), 0.0)

    hooks = [module.get_submodule(name).register_forward_hook(silent(channels)) for name, channels in gone.items()]
    outputs = module(images())
    for hook in hooks:
        hook.remove()
    return outputs


def test_inputs_and_outputs_go_in_groups_too():
    module = seeded(UNet)
    groups = find_groups(module, SHAPE)
    assert {name: (group.channels, group.blocks) for name, group in groups.items()} == {
        "down": (16, 1),
        "deep": (32, 1),
        "up": (12, 1),
        "join": (16, 4),
        "grouped": (24, 4),
    }
    removed = {"deep": [0, 7, 30], "up": [1, 2, 11], "join": [0, 5, 8, 15], "grouped": [0, 3, 6, 9, 12, 17, 20, 23]}
    wide = sorted([2 * channel for channel in removed["grouped"]] + [2 * channel + 1 for channel in removed["grouped"]])
    wanted = without(
        module, {"deep": removed["deep"], "norm": removed["up"], "join": removed["join"], "depthwise": wide}
    )
    before = copy.deepcopy(module)
    kept = remove(module, groups, {name: torch.tensor(channels) for name, channels in removed.items()})
    torch.testing.assert_close(module(images()), wanted)
    assert kept["up"].tolist() == [0, *range(3, 11)] and len(kept["depthwise"]) == 32
    shapes = {name: tuple(module.get_submodule(name).weight.shape) for name in ("up", "grouped", "depthwise")}
    assert shapes == {"up": (29, 9, 2, 2), "grouped": (12, 4, 3, 3), "depthwise": (16, 2, 2, 2)}
    assert (module.depthwise.groups, module.grouped.groups, module.grouped.out_channels) == (16, 4, 16)

    edits = find_edits(copy.deepcopy(before), module)
    assert edits["depthwise"] == {"in_channels": 16, "out_channels": 32, "groups": 16}
    base = copy.deepcopy(before)
    apply_edits(base, edits)
    base.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(base.eval()(images()), module(images()))


def test_weights_of_the_networks_own_lose_their_inputs():
    module = seeded(Own)
    groups = find_groups(module, SHAPE)
    wanted = without(module, {"first": [1, 6]})
    remove(module, groups, {"first": torch.tensor([1, 6])})
    torch.testing.assert_close(module(images()), wanted)
    assert (module.wide.shape[0], module.kernel.shape[0]) == (6, 12)


def test_a_weight_that_is_read_by_both_kinds_of_convolution_stays():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.up, self.fc = nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 8, 1), nn.Linear(8, 10)

        def forward(self, images):
            return self.fc(F.conv2d(self.up(self.conv(images)), self.up.weight).mean((2, 3)))

    assert "up" not in {name for group in find_groups(Both().eval(), SHAPE).values() for name in group.producers()}


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_every_dimension(kind):
    axes = int(kind.__name__[-2])

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.up, self.fc = nn.Conv2d(3, 8, 1), kind(8, 6, 2, 2), nn.Linear(6, 10)

        def forward(self, images):
            maps = self.conv(images)
            maps = {1: maps.flatten(2), 2: maps, 3: maps.unsqueeze(-1)}[axes]
            return self.fc(self.up(maps).flatten(2).mean(2))

    module = seeded(Deep)
    groups = find_groups(module, SHAPE)
    wanted = without(module, {"conv": [3], "up": [0, 5]})
    remove(module, groups, {"conv": torch.tensor([3]), "up": torch.tensor([0, 5])})
    torch.testing.assert_close(module(images()), wanted)
    assert (side_length(module.up, output=True), side_length(module.up, output=False)) == (4, 7)


def test_macs_are_half_of_torchs_flops_and_the_costs_add_up_to_them():
    module = seeded(UNet)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, *SHAPE))
    macs = count_macs(module, SHAPE)
    assert 2 * sum(macs.values()) == counter.get_total_flops()
    for target, total in (("macs", sum(macs.values())), ("parameters", sum(map(torch.numel, module.parameters())))):
        costs = layer_costs(module, target, SHAPE, [])
        spent = sum(cost.outputs * (cost.inputs * cost.per_weight + cost.per_output) for cost in costs.values())
        assert spent == pytest.approx(total)


def test_a_narrower_student_has_half_of_the_channels():
    module = seeded(UNet)
    narrow(module, SHAPE, 0.5)
    assert (module.up.in_channels, module.up.out_channels) == (16, 8)  # 6 is no multiple of 4
    assert (module.grouped.in_channels, module.grouped.out_channels, module.depthwise.out_channels) == (8, 12, 24)
    assert module(images()).isfinite().all()
