import torch
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
