"""Activation checkpointing changes nothing but the memory."""

import dataclasses

import pytest
import torch
from kondense.errors import InputError
from kondense.networks.build import NetworkSpec, build
from kondense.training.fit import fit
from kondense.training.recomputation import blocks, recomputed
from kondense.training.settings import TrainingConfig
from torch import Tensor, nn

from tests.support.together import together
from tests.support.toy_training import toy_dataset

CONFIG = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.02, augment="crop_flip", averaging=0.9, device="cpu")


class Counting(nn.Module):
    """A layer whose output depends on how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return values * self.calls.clone()


def block(inputs: int, outputs: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(0.3), Counting())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(block(1, 6), block(6, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def resnet() -> nn.Module:
    return build(NetworkSpec("resnet8", {"classes": 3, "channels": 1, "image_size": 16}), seed=1)


@pytest.mark.parametrize("make", [network, resnet])
def test_training_ends_in_the_same_weights_and_statistics_to_the_bit(make) -> None:
    results = []
    for recompute in (False, True):
        module = make()
        assert blocks(module)
        points = fit(module, toy_dataset(), dataclasses.replace(CONFIG, recompute_activations=recompute))
        results.append((points, module.state_dict(), {name for part in module.modules() for name in vars(part)}))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(results[1][1][name], tensor) for name, tensor in results[0][1].items())
    assert results[0][2] == results[1][2]  # nothing is left in the modules


def test_blocks_keep_only_their_inputs() -> None:
    module, images, sizes = resnet().train(), torch.randn(4, 1, 16, 16), []
    for parts in ([], blocks(module)):
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor, saved: dict[int, Tensor] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), recomputed(parts):
            module(images).sum().backward()
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in saved.values()))
    assert sizes[1] < 0.4 * sizes[0]


@pytest.mark.parametrize(("name", "expected"), [("resnet18", 8), ("vit_b_16", 12), ("efficientnet_b0", 18)])
def test_blocks_are_the_repeated_parts(name: str, expected: int) -> None:
    with torch.device("meta"):
        module = pytest.importorskip("torchvision").models.get_model(name, weights=None)
    assert len(blocks(module)) == expected


def test_a_network_without_blocks_is_told(log_on_stdout, capsys) -> None:
    module = build(NetworkSpec("lenet300", {"classes": 3, "channels": 1, "image_size": 16}), seed=1)
    fit(module, toy_dataset(), dataclasses.replace(CONFIG, epochs=1, recompute_activations=True))
    assert "recompute_activations saves nothing" in capsys.readouterr().out


def test_compiled_networks_are_refused() -> None:
    with pytest.raises(InputError, match="recompute_activations must be false with compile"):
        TrainingConfig(compile=True, recompute_activations=True)


def test_synchronised_norms_are_those_of_one_process(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, batch_size=31, recompute_activations=True)

    def trained(_: int = 0) -> dict[str, Tensor]:
        module = resnet()
        fit(module, toy_dataset(), config)
        return module.state_dict()

    expected = trained()
    for state in together(trained, tmp_path, 2):
        for name, tensor in expected.items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-5)
