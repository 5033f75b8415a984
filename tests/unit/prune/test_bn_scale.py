import pytest
import torch
import torch.nn.functional as F
from kondense.channels.dependencies import find_groups
from kondense.networks.build import NetworkSpec, build
from kondense.prune.config import PruneConfig
from kondense.prune.scores import bn_scale
from torch import nn

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

DATASET = toy_dataset()
SETTINGS = {"method": "bn_scale", "device": "cpu", "batch_size": 32, "sparsity": 0.3, "reconstruct": False}


def resnet():
    return build(NetworkSpec("resnet8", {"classes": 3, "channels": 1, "image_size": 16}), seed=5)


def test_scores_by_hand():
    module = resnet()
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data = torch.randn(len(layer.weight), generator=generator)
    scores = bn_scale.score(module, find_groups(module, DATASET.shape))
    torch.testing.assert_close(scores["blocks.0.conv1"], module.blocks[0].bn1.weight.abs())
    shortcut = module.bn1.weight.abs() + module.blocks[0].bn2.weight.abs()
    torch.testing.assert_close(scores[next(name for name in scores if name in ("conv1", "blocks.0.conv2"))], shortcut)


def test_the_penalty_is_the_sum_of_the_scales():
    module = resnet()
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    plain = lambda logits_BK, labels_B, images_BCHW: F.cross_entropy(logits_BK, labels_B)  # noqa: E731
    loss = bn_scale.penalised(plain, module, 0.5)(logits, labels, torch.zeros(4, 1, 16, 16))
    scales = sum(float(m.weight.detach().abs().sum()) for m in module.modules() if isinstance(m, nn.BatchNorm2d))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels) + 0.5 * scales)


def test_sparse_training_shrinks_the_scales_and_takes_its_epochs_from_the_budget():
    means = []
    for penalty in (0.0, 0.2):
        module = resnet()
        request = make_context(PruneConfig(**SETTINGS, epochs=3, sparse_epochs=2, sparse_penalty=penalty), DATASET)
        method = bn_scale.prepare(module, request)
        assert method.own_epochs() == 2
        method.step(0.5)
        method.step(1.0)
        assert len(request.session.curve) == 2
        scales = [layer.weight.detach() for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        means.append(float(torch.cat(scales).abs().mean()))
    assert means[1] < means[0] - 0.04


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"sparse_epochs must be less than epochs \(2\), .* but got 2"):
        bn_scale.prepare(resnet(), make_context(PruneConfig(**SETTINGS, epochs=2, sparse_epochs=2), DATASET))
    lenet = build(NetworkSpec("lenet5", {"classes": 3, "channels": 1, "image_size": 16}))
    with pytest.raises(ValueError, match="bn_scale needs batch norms with a scale"):
        bn_scale.prepare(lenet, make_context(PruneConfig(**SETTINGS), DATASET))
