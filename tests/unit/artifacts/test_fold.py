"""Folding batch norms keeps the function and is something a Model artifact can express."""

from pathlib import Path

import pytest
import torch
from kondense.artifacts.equivalence import difference, probes
from kondense.artifacts.fold import fold_batch_norms, foldable_norms
from kondense.artifacts.model import Model, load_model, save_model
from kondense.networks.build import NetworkSpec, build
from torch import Tensor, nn


def trained_like(module: nn.Module) -> nn.Module:
    """Give every batch norm statistics and parameters as training would, in place."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.5, 2)):
                tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))
            with torch.no_grad():
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.uniform_(-0.5, 0.5, generator=generator)
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d) for each in module.modules())


@pytest.mark.parametrize("name", ["resnet8", "mobilenet_small", "torchvision:mobilenet_v2"])
def test_the_function_stays_and_no_norm_is_left(name: str) -> None:
    spec = NetworkSpec(name, {"classes": 10, "channels": 3, "image_size": 32})
    module = trained_like(build(spec))
    folded = fold_batch_norms(module)
    images_NCHW = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(folded(images_NCHW), module(images_NCHW), rtol=1e-3, atol=1e-4)
    assert norms(module) > 0
    assert norms(folded) == 0


def test_a_folded_network_is_saved_and_loaded(tmp_path: Path) -> None:
    spec = NetworkSpec("resnet8", {"classes": 10, "channels": 1, "image_size": 28})
    folded = fold_batch_norms(trained_like(build(spec)))
    save_model(tmp_path / "model", Model(folded, spec))
    loaded = load_model(tmp_path / "model").module
    images_NCHW = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(loaded(images_NCHW), folded(images_NCHW))


def test_zeros_stay_zeros() -> None:
    module = build(NetworkSpec("resnet8", {"classes": 10, "channels": 1, "image_size": 28}))
    with torch.no_grad():
        module.conv1.weight[::2] = 0
    folded = fold_batch_norms(trained_like(module))
    assert torch.equal(folded.conv1.weight == 0, module.conv1.weight == 0)


class NotFoldable(nn.Module):
    """A norm whose convolution is used twice, one that comes first, and one after a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.shared = nn.Conv2d(3, 3, 1)
        self.after = nn.BatchNorm2d(3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        hidden_NCHW = self.conv(self.first(images_NCHW))
        output_NCHW = self.norm(hidden_NCHW) + hidden_NCHW
        return self.after(self.shared(self.shared(output_NCHW))).flatten(1)


def test_norms_that_cannot_be_folded_stay() -> None:
    module = trained_like(NotFoldable())
    folded = fold_batch_norms(module)
    images_NCHW = torch.randn(2, 3, 4, 4)
    assert norms(folded) == 3
    with torch.no_grad():
        assert torch.equal(folded(images_NCHW), module(images_NCHW))


class Branching(nn.Module):
    """A network whose control flow depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        if images_NCHW.sum() > 0:
            return self.norm(self.conv(images_NCHW))
        return self.conv(images_NCHW)


def test_a_network_that_cannot_be_traced_stays_as_it_is() -> None:
    assert norms(fold_batch_norms(Branching())) == 1


class Named(nn.Module):
    """A block whose layers stand under names of their own, in a Sequential and in a list, and a check of the input."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        if kind == "sequential":
            self.net = nn.Sequential(self.conv, self.norm, nn.ReLU())
        self.layers = {"list": [self.conv, self.norm], "tuple": (self.conv, self.norm)}.get(kind)
        if kind == "dictionary":
            self.layers = {"a": self.conv, "b": self.norm}

    def forward(self, images_NCHW: Tensor) -> Tensor:
        if self.kind == "sequential":
            return self.net(images_NCHW)
        if self.kind == "assert":
            assert isinstance(images_NCHW, Tensor) and images_NCHW.shape[1] == 3
        scale = {4: 1.0, 8: 0.5}[images_NCHW.shape[2]] if self.kind == "table" else 1.0
        if self.kind == "loop":
            hidden = self.norm(self.conv(images_NCHW))
            return torch.stack([hidden[:, :, row] for row in range(hidden.shape[2])], dim=1)
        for layer in self.layers.values() if isinstance(self.layers, dict) else self.layers or (self.conv, self.norm):
            images_NCHW = layer(images_NCHW)
        return images_NCHW * scale


@pytest.mark.parametrize("kind", ["sequential", "list", "tuple", "dictionary", "assert", "table", "loop"])
def test_a_norm_is_folded_wherever_the_network_holds_it(kind: str) -> None:
    module = trained_like(Named(kind))
    batches = probes((3, 4, 4))
    folded = fold_batch_norms(module, batches)
    assert norms(folded) == 0
    assert difference(module, folded, batches) == 0.0


class Axes(nn.Module):
    """A linear layer before a norm: on the same axis or on another, in every way to get there."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.flatten = kind, nn.Flatten()
        self.fc, self.norm = nn.Linear(*self.sizes(kind)), nn.BatchNorm1d(4)

    @staticmethod
    def sizes(kind: str) -> tuple[int, int]:
        return (4, 4) if kind in ("tokens", "fewer") else (16, 4)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        ways = {
            "flat": lambda: self.flatten(images_NCHW),
            "function": lambda: torch.flatten(images_NCHW, 1),
            "view": lambda: images_NCHW.view(images_NCHW.shape[0], -1),
            "unknown": lambda: images_NCHW.movedim(1, 3).reshape(len(images_NCHW), -1).squeeze(),
            "tokens": lambda: images_NCHW.squeeze(1),
            "fewer": lambda: images_NCHW.squeeze(1)[:, :, :4],
        }
        hidden = self.norm(self.fc(ways[self.kind]()))
        return hidden.flatten(1)


@pytest.mark.parametrize("kind", ["flat", "function", "view", "unknown", "tokens", "fewer"])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_norm_on_another_axis_is_kept(kind: str, given: bool, fresh: bool) -> None:
    module = Axes(kind).eval() if fresh else trained_like(Axes(kind))
    batches = probes((1, 4, 4))[1:]
    found = foldable_norms(module, batches if given else ())
    same = kind in ("flat", "function", "view") or (kind == "unknown" and given)
    assert found == ({"fc": "norm"} if same else {})
    assert difference(module, fold_batch_norms(module, batches if given else ()), batches) == 0.0


class Barred(nn.Module):
    """A weight that a norm's layer shares, one that the forward reads itself, and a hook that changes an output."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.other, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        if kind == "tied":
            self.other.weight = self.conv.weight
        if kind == "hook":
            self.conv.register_forward_hook(lambda _layer, _inputs, output: output.abs())

    def forward(self, images_NCHW: Tensor) -> Tensor:
        hidden = self.norm(self.conv(self.other(images_NCHW)))
        return hidden * self.conv.weight.mean() if self.kind == "read" else hidden


@pytest.mark.parametrize("kind", ["tied", "read", "hook"])
def test_a_layer_that_something_else_depends_on_is_kept(kind: str) -> None:
    module = trained_like(Barred(kind))
    for batches in ((), probes((3, 4, 4))):
        assert foldable_norms(module, batches) == {}


def test_a_path_that_depends_on_values_is_not_recorded() -> None:
    assert norms(fold_batch_norms(trained_like(Branching()), probes((3, 4, 4)))) == 1
