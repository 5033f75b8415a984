import pytest
import torch
from kondense.data.dataset import Dataset, Split
from kondense.networks.build import NetworkSpec, build
from kondense.prune.batch_norm import reestimate
from torch import nn

from tests.support.toy_training import toy_dataset


def test_statistics_are_those_of_the_training_images():
    dataset = toy_dataset()  # fewer images than are drawn, so all of them, in one batch
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5))
    module[1].running_mean.fill_(7.0)
    weights = [weight.clone() for weight in module.parameters()]
    reestimate(module, dataset, seed=0)
    with torch.no_grad():
        hidden_NCHW = module[0](dataset.normalise(dataset.train.images))
    torch.testing.assert_close(module[1].running_mean, hidden_NCHW.mean((0, 2, 3)))
    torch.testing.assert_close(module[1].running_var, hidden_NCHW.var((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert module[1].momentum == 0.1
    assert not any(layer.training for layer in module.modules())
    assert all(torch.equal(old, new) for old, new in zip(weights, module.parameters(), strict=True))


def test_a_network_without_norms_is_left_alone():
    module = build(NetworkSpec("lenet5", {"classes": 3, "channels": 1, "image_size": 16}))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    reestimate(module, toy_dataset(), seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def graded(count):
    """Images whose brightness differs more between images than within them."""
    generator = torch.Generator().manual_seed(0)

    def split(number):
        bright = torch.randint(0, 200, (number, 1, 1, 1), generator=generator)
        images = bright + torch.randint(0, 56, (number, 1, 4, 4), generator=generator)
        return Split(images.to(torch.uint8), torch.arange(number) % 2)

    return Dataset("graded", ("a", "b"), (0.5,), (0.25,), 0, "test", split(count), split(4), split(4))


@pytest.mark.parametrize("count", [37, 501, 750, 1000])
def test_unequal_batches_count_by_their_images(count):
    dataset, norm = graded(count), nn.BatchNorm2d(1)
    reestimate(nn.Sequential(norm), dataset, seed=0)
    pixels = dataset.normalise(dataset.train.images)
    torch.testing.assert_close(norm.running_mean, pixels.mean().reshape(1), rtol=1e-4, atol=1e-5)
    exact = count % 500 != 0  # batches of equal size are averaged
    torch.testing.assert_close(norm.running_var, pixels.var().reshape(1), rtol=1e-4 if exact else 1e-2, atol=1e-5)


@pytest.mark.parametrize("count", [501, 1])
def test_features_of_one_image_alone_are_no_batch(count):
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4))
    reestimate(module, graded(count), seed=0)
    assert module[2].running_var.isfinite().all()
    assert not module[2].training
