"""The memory format of training is chosen by trying."""

import pytest
import torch
import torch.nn.functional as F
from kondense.measuring.memory_format import taken_format
from kondense.training.device import choose_memory_format, formats_tried_once
from kondense.training.fit import fit
from kondense.training.losses import SoftLabelLoss
from kondense.training.settings import TrainingConfig
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.support.toy_training import toy_dataset

IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions and a head, flattened by ``flatten``."""

    def __init__(self, flatten, size=8):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * size * size, 3)
        self.flatten = flatten

    def forward(self, images):
        hidden = self.conv2(F.relu(self.norm(self.conv1(images))))
        return self.fc(self.flatten(hidden))


def by_view(hidden):
    return hidden.view(hidden.shape[0], -1)


def by_strides(hidden):
    return hidden.as_strided((hidden.shape[0], hidden[0].numel()), (hidden[0].numel(), 1))


def in_training(hidden):
    return by_view(hidden) if torch.is_grad_enabled() else hidden.flatten(1)


@pytest.mark.parametrize("flatten", [by_view, by_strides, in_training])
def test_a_network_that_does_not_work_in_channels_last_stays_contiguous(flatten, caplog):
    caplog.set_level("INFO")
    assert choose_memory_format(Net(flatten), IMAGES) is torch.contiguous_format
    assert "contiguous memory format: in channels_last" in caplog.text


def test_others_are_in_channels_last_and_stay_as_they_are():
    module = Net(lambda hidden: hidden.flatten(1)).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    generator = torch.random.get_rng_state()
    assert choose_memory_format(module, IMAGES) is torch.channels_last
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not module.training and torch.equal(torch.random.get_rng_state(), generator)
    assert all(weight.grad is None for weight in module.parameters())


@pytest.mark.parametrize(
    ("flatten", "expected"), [(by_view, torch.contiguous_format), (torch.nn.Flatten(), torch.channels_last)]
)
def test_what_is_left_of_a_network_takes_the_format_that_was_found_for_it(flatten, expected):
    runs = []

    class Counted(Net):
        def forward(self, images):
            runs.append(images.shape)
            return super().forward(images)

    with formats_tried_once():
        assert choose_memory_format(Counted(flatten), IMAGES) is expected
        tried = len(runs)
        assert choose_memory_format(Counted(flatten), IMAGES[:, :, :8]) is expected
        assert len(runs) == tried > 0
        assert choose_memory_format(nn.Sequential(Counted(flatten)), IMAGES) is expected  # other modules
        assert len(runs) > tried
    tried = len(runs)
    choose_memory_format(Counted(flatten), IMAGES)
    assert len(runs) > tried


def test_a_network_that_cannot_train_at_all_is_refused():
    module = nn.Sequential(nn.Conv2d(1, 4, 8), nn.InstanceNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="must train on images of 1x8x8, but: Expected more than 1 spatial element"):
        choose_memory_format(module, IMAGES)


@pytest.mark.parametrize("student", [by_view, nn.Flatten()])
def test_networks_that_flatten_by_view_train_and_teach(student):
    dataset, config = toy_dataset(train=32), TrainingConfig(epochs=1, batch_size=16, device="cpu")
    module, teacher = Net(student, size=16), Net(by_view, size=16)
    fit(module, dataset, config, loss=SoftLabelLoss(teacher, temperature=2.0, alpha=0.5))
    assert torch.isfinite(module.fc.weight).all()


def test_a_teacher_gets_images_in_the_format_that_it_takes():
    images = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    view = nn.Sequential(nn.Identity(), nn.Unflatten(1, (3,)), nn.Flatten()).eval()
    assert taken_format(view, images) is torch.channels_last

    class View(nn.Module):
        def forward(self, images):
            return images.view(2, -1)

    assert taken_format(View().eval(), images) is torch.contiguous_format


class Recomputing(nn.Module):
    """Keeps no activations of its convolutions, and calls them again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), nn.Linear(8, 3)

    def forward(self, images):
        return self.fc(checkpoint(self.body, images, use_reentrant=False).mean((2, 3)))


def test_a_network_that_recomputes_its_activations_is_in_channels_last():
    assert choose_memory_format(Recomputing(), IMAGES) is torch.channels_last
