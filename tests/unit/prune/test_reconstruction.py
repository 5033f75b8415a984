import copy

import numpy as np
import torch
import torch.nn.functional as F
from kondense.channels.dependencies import find_groups
from kondense.channels.surgery import remove
from kondense.prune import reconstruction
from kondense.prune.config import PruneConfig
from kondense.prune.reconstruction import RIDGE, reconstruct
from torch import nn

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

DATASET = toy_dataset(size=8)


def request(**values):
    return make_context(PruneConfig(device="cpu"), DATASET, **values)


def shrink(module, removed, asked, **options):
    """Remove channels and reconstruct; returns the network before."""
    before = copy.deepcopy(module)
    kept = remove(
        module, find_groups(module, DATASET.shape), {name: torch.tensor(value) for name, value in removed.items()}
    )
    reconstruct(module, before, kept, asked, **options)
    return before


def test_it_is_the_least_squares_solution():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3)).eval()
    columns = torch.arange(6 * 36).reshape(6, 36)[[0, 2, 3, 5]].flatten()
    weight = module[3].weight[:, columns].detach().double().numpy()
    before = shrink(module, {"0": [1, 4]}, request())
    images = DATASET.normalise(DATASET.train.images)
    with torch.no_grad():
        inputs, wanted = module[:3](images).double().numpy(), before(images).double().numpy()
    missing = wanted - inputs @ weight.T
    centred, errors = inputs - inputs.mean(0), missing - missing.mean(0)
    ridge = np.sqrt(RIDGE * (centred**2).sum() / centred.shape[1]) * np.eye(centred.shape[1])
    change = np.linalg.lstsq(np.vstack([centred, ridge]), np.vstack([errors, np.zeros((len(ridge), 3))]), rcond=None)[0]
    np.testing.assert_allclose(module[3].weight.detach().numpy(), weight + change.T, atol=1e-4)
    np.testing.assert_allclose(module[3].bias.detach().numpy(), missing.mean(0) - inputs.mean(0) @ change, atol=1e-4)


def test_a_channel_that_others_can_replace_is_replaced_through_norms_and_a_shortcut():
    torch.manual_seed(0)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
            self.conv2, self.bn2 = nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
            self.skip = nn.Conv2d(1, 4, 1, stride=1)
            self.fc = nn.Linear(4, 3)

        def forward(self, images_NCHW):
            hidden = torch.relu(self.bn1(self.conv1(images_NCHW)))
            return self.fc(torch.relu(self.bn2(self.conv2(hidden)) + self.skip(images_NCHW)).mean((2, 3)))

    module = Residual()
    with torch.no_grad():
        module.conv1.weight[5] = 2 * module.conv1.weight[3]  # the norm makes it the same channel once more
        for _ in range(60):
            module.train()(DATASET.normalise(DATASET.train.images))
        module.eval()
        before = shrink(module, {"conv1": [5]}, request())
        images = DATASET.normalise(DATASET.test.images)
        untouched = copy.deepcopy(before)
        remove(untouched, find_groups(untouched, DATASET.shape), {"conv1": torch.tensor([5])})
        lost, left = ((network(images) - before(images)).abs().max() for network in (untouched, module))
    assert module.conv2.in_channels == 5
    assert left < 0.02 * lost


def test_a_shift_that_no_weight_can_give_goes_into_the_norm():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1, bias=False),
        nn.BatchNorm2d(3),
        nn.Flatten(),
        nn.Linear(192, 3),
    ).eval()
    with torch.no_grad():
        module[0].weight[2] = 0.0
        module[0].bias[2] = 1.0  # a constant channel
        before = shrink(module, {"0": [2]}, request())
        images = DATASET.normalise(DATASET.test.images)
        assert (module(images) - before(images)).abs().max() < 5e-3


def test_pruned_zeros_stay_and_the_mode_is_evaluation():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Flatten(), nn.Linear(128, 3))
    with torch.no_grad():
        module[2].weight[:, ::2] = 0.0
    shrink(module, {"0": [1]}, request(masked=("2.weight",)))
    assert not module[2].weight[:, [0, 1, 3]].any()
    assert not module.training


def test_few_positions_of_many_images_and_the_same_every_time():
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Flatten(), nn.Linear(128, 3))
        before = shrink(module, {"0": [1, 2]}, request(), rows=1000)
        made.append(module)
    assert torch.equal(made[0][2].weight, made[1][2].weight)
    assert not torch.equal(made[0][2].weight, before[2].weight[:, [0, 3, 4, 5]])


def test_windows_are_those_of_unfold():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3))
    images = torch.randn(2, 2, 9, 8)
    windows = reconstruction._windows(layer, images)
    expected = F.unfold(images, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    assert torch.equal(windows.permute(0, 1, 4, 5, 2, 3).flatten(1, 3).flatten(2), expected)


def test_few_rows_and_many_give_the_same_solution():
    generator = torch.Generator().manual_seed(0)
    inputs, wanted = torch.randn(40, 30, generator=generator) + 1, torch.randn(40, 4, generator=generator)
    weight = torch.randn(4, 30, generator=generator)
    for shifts in (True, False):
        many = reconstruction._fit_many([(inputs[:25], wanted[:25]), (inputs[25:], wanted[25:])], weight, shifts)
        few = reconstruction._fit_few([(inputs[:25], wanted[:25]), (inputs[25:], wanted[25:])], weight, shifts)
        change, mean, error = few
        torch.testing.assert_close(change, many[0], rtol=1e-3, atol=1e-4)
        if shifts:
            torch.testing.assert_close(error - mean @ change, many[2] - many[1] @ many[0], rtol=1e-3, atol=1e-3)


class OneByOne(nn.Module):
    """Two layers at every position: convolutions of one pixel, or the same fully connected."""

    def __init__(self, linear: bool):
        super().__init__()
        torch.manual_seed(0)
        convolutions = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 6, 1)
        self.linear, self.first, self.second = linear, *convolutions
        if linear:
            self.first, self.second = nn.Linear(1, 8), nn.Linear(8, 6)
            for layer, convolution in zip((self.first, self.second), convolutions, strict=True):
                layer.load_state_dict(
                    {
                        key: value.flatten(1) if value.ndim == 4 else value
                        for key, value in convolution.state_dict().items()
                    }
                )
        self.head = nn.Linear(6, 3)

    def forward(self, images_NCHW):
        maps = images_NCHW.movedim(1, -1) if self.linear else images_NCHW
        maps = self.second(self.first(maps).relu())
        return self.head(maps.mean((1, 2) if self.linear else (2, 3)))


def test_a_linear_layer_at_every_position_is_fitted_as_the_convolution_that_it_is():
    fitted = []
    for linear in (True, False):
        module = OneByOne(linear).eval()
        shrink(module, {"first": [1, 4]}, request())
        fitted.append(module.second)
    assert not torch.equal(fitted[0].weight, OneByOne(linear=True).second.weight[:, [0, 2, 3, 5, 6, 7]])
    torch.testing.assert_close(fitted[0].weight, fitted[1].weight.flatten(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fitted[0].bias, fitted[1].bias, atol=1e-4, rtol=1e-4)


def test_layers_whose_first_axis_holds_windows_stay_as_they_are():
    class Windows(OneByOne):
        def forward(self, images_NCHW):
            return super().forward(torch.cat(images_NCHW.chunk(2, 2))).unflatten(0, (2, -1)).mean(0)

    module = Windows(linear=True).eval()
    weight = module.second.weight[:, [0, 2, 3, 5, 6, 7]].clone()
    shrink(module, {"first": [1, 4]}, request())
    assert torch.equal(module.second.weight, weight)
