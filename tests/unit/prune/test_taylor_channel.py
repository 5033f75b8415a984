import torch
import torch.nn.functional as F
from kondense.channels.dependencies import find_groups
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.scores import taylor_channel
from torch import nn

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

DATASET = toy_dataset()


def test_scores_are_the_squared_gradients_of_gates():
    """A gate on every channel, 1 when open: its gradient is what the first-order change is."""
    module = build(NetworkSpec("resnet8", {"classes": 3, "channels": 1, "image_size": 16}), seed=5).eval()
    context = make_context(PruneConfig(device="cpu", seed=3), DATASET)
    scores = taylor_channel.score(module, find_groups(module, DATASET.shape), context, batches=2, batch=16)
    order = torch.randperm(len(DATASET.train), generator=torch.Generator().manual_seed(3))[:32]
    expected = torch.zeros(16)
    gates = torch.ones(16, requires_grad=True)
    # relu1 of the first block is what the channels of its first convolution are read from
    module.blocks[0].relu1.register_forward_hook(lambda _, __, output: output * gates.view(1, -1, 1, 1))
    for index in order.split(16):
        loss = F.cross_entropy(module(DATASET.normalise(DATASET.train.images[index])), DATASET.train.labels[index])
        expected += torch.autograd.grad(loss, gates)[0].square() / 2
    torch.testing.assert_close(scores["blocks.0.conv1"], expected, rtol=1e-3, atol=1e-9)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_by_hand():
    module = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1))
        module[2].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    dataset = toy_dataset(size=1, classes=1, train=1)
    context = make_context(
        PruneConfig(device="cpu"), dataset, loss=lambda logits_BK, labels_B, images: logits_BK[:, 1].sum()
    )
    x = float(dataset.normalise(dataset.train.images))
    scores = taylor_channel.score(module, find_groups(module, (1, 1, 1)), context)["0"]
    # the loss is 3 x: it is all the second channel's
    torch.testing.assert_close(scores, torch.tensor([0.0, (3 * x) ** 2]))
