"""Folding batch norms keeps the function and is something a Model artifact can express."""

from pathlib import Path

import pytest
import torch
from kondense.artifacts.fold import fold_batch_norms
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
