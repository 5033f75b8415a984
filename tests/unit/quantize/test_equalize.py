"""Equalisation keeps the function, whatever lies between the layers, and brings ranges together."""

import copy

import pytest
import torch
from kondense.artifacts.equivalence import difference, probes
from kondense.artifacts.fold import fold_batch_norms
from kondense.quantize.graph import next_layer, only_relu_follows, trace_graph
from kondense.quantize.static.equalize import equalize
from torch import Tensor, nn

from tests.support.quantize_makers import make_dataset, make_model


def spread(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every output channel a range of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight *= torch.rand(len(layer.weight), *[1] * (layer.weight.ndim - 1), generator=generator) * 10
    return module.eval()


class Functional(nn.Module):
    """A network that calls functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 7 * 7, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = nn.functional.max_pool2d(torch.relu(self.conv(images)), 2)
        return self.fc(hidden.flatten(1))


NETWORKS = {
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.LeakyReLU(), nn.Conv2d(6, 4, 1)
    ),
    "flattened": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 49, 8), nn.ReLU(), nn.Linear(8, 3)
    ),
    "averaged": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ),
    "functional": Functional,
}
PAIRS = {"depthwise": 2, "flattened": 2, "averaged": 1, "functional": 1}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays_and_ranges_meet(name: str) -> None:
    torch.manual_seed(0)
    module = spread(NETWORKS[name]()).double()
    images = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    before, expected = copy.deepcopy(module), module(images)
    pairs = equalize(module)
    assert len(pairs) == PAIRS[name]
    torch.testing.assert_close(module(images), expected, rtol=1e-9, atol=1e-9)
    assert any(not torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters(), strict=True))
    if name in {"flattened", "functional"}:
        writer, reader = (module.get_submodule(each) for each in pairs[0])
        written = writer.weight.flatten(1).abs().amax(1)
        read = reader.weight.reshape(len(reader.weight), len(written), -1).abs().amax((0, 2))
        torch.testing.assert_close(written, read, rtol=1e-2, atol=0)


def places(flatten: int) -> nn.Module:
    """Return a linear layer over the places of each channel."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(flatten), nn.Linear(16, 3), nn.ReLU(), nn.Flatten()
    )


OTHER_AXES = {
    "places": lambda: places(2),
    "rows": lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 3), nn.Flatten()),
    "tokens": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)),
    "pooled features": lambda: nn.Sequential(
        nn.Linear(4, 4), nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten(), nn.Linear(4, 3)
    ),
    "features as channels": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Conv2d(1, 4, 1), nn.Flatten()),
}


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", OTHER_AXES)
def test_no_channel_is_scaled_on_another_axis(name: str, given: bool) -> None:
    torch.manual_seed(0)
    module = spread(OTHER_AXES[name]())
    batches = probes((1, 4, 4))
    before = copy.deepcopy(module)
    equalize(module, batches if given else ())
    assert difference(before, module, batches) == 0.0


class Shared(nn.Module):
    """Layers with one weight, or a weight that the forward reads."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one, self.two, self.three = (nn.Conv2d(4 if index else 1, 4, 1) for index in range(3))
        if kind == "tied":
            self.three.weight = self.two.weight

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.three(self.two(self.one(images).relu()).relu())
        return hidden * self.two.weight.mean() if self.kind == "read" else hidden


@pytest.mark.parametrize("kind", ["tied", "read"])
def test_a_weight_of_two_readers_is_not_scaled(kind: str) -> None:
    module = spread(Shared(kind))
    before = copy.deepcopy(module)
    assert ("one", "two") not in equalize(module)
    assert difference(before, module, probes((1, 4, 4))) == 0.0


def test_two_layers_by_hand() -> None:
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[8.0], [1.0]]))
        module[0].bias.copy_(torch.tensor([4.0, 1.0]))
        module[2].weight.copy_(torch.tensor([[2.0, -4.0]]))
    equalize(module)
    assert module[0].weight.flatten().tolist() == pytest.approx([4.0, 2.0])  # sqrt(8 * 2), sqrt(1 * 4)
    assert module[0].bias.tolist() == pytest.approx([2.0, 2.0])
    assert module[2].weight.flatten().tolist() == pytest.approx([4.0, -2.0])


@pytest.mark.parametrize(
    "between", [nn.Sigmoid(), nn.ReLU6(), nn.Hardswish(), nn.BatchNorm2d(4)], ids=lambda module: type(module).__name__
)
def test_nothing_moves_through_what_does_not_commute(between: nn.Module) -> None:
    module = spread(nn.Sequential(nn.Conv2d(1, 4, 3), between, nn.Conv2d(4, 2, 1)))
    before = copy.deepcopy(module)
    assert equalize(module) == []
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "mobilenet_small"])
def test_real_networks_compute_the_same(name: str) -> None:
    dataset = make_dataset(size=16)
    module = spread(fold_batch_norms(make_model(name, dataset, width=0.5, steps=3).module)).double()
    images = dataset.normalise(dataset.test.images[:20]).double()
    expected = module(images)
    assert equalize(module)
    torch.testing.assert_close(module(images), expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


def test_zeros_and_dead_channels_stay() -> None:
    module = spread(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    with torch.no_grad():
        module[0].weight[1] = 0
        module[2].weight[:, 2] = 0
        module[0].weight[3, 1] = 0
    zeros = [layer.weight == 0 for layer in (module[0], module[2])]
    equalize(module)
    for zero, layer in zip(zeros, (module[0], module[2]), strict=True):
        assert torch.equal(layer.weight == 0, zero)
        assert torch.isfinite(layer.weight).all()


def test_successors_of_a_residual_block() -> None:
    dataset = make_dataset(size=16)
    graph = trace_graph(fold_batch_norms(make_model("resnet8", dataset, width=0.5, steps=1).module))
    assert next_layer(graph, "blocks.0.conv1") == "blocks.0.conv2"
    assert next_layer(graph, "blocks.0.conv2") is None  # meets the shortcut
    assert next_layer(graph, "conv1") is None  # read twice
    assert only_relu_follows(graph, "blocks.0.conv1")
    assert not only_relu_follows(graph, "blocks.0.conv2")
    assert not only_relu_follows(graph, "fc")
