import pytest
import torch
import torch_pruning
from kondense.channels.dependencies import find_groups
from kondense.prune.scores import fpgm, l1, l2
from torch import nn
from torch_pruning.dependency import DependencyGraph

from tests.unit.prune.test_channels import NETWORKS, SHAPE, network


def tiny():
    """Two channels of four positions each, read by a fully connected layer."""
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1))
        module[3].weight.copy_(torch.arange(24.0).reshape(3, 8) - 10)
    return module, find_groups(module, (1, 2, 2))


def leaving(channel):
    """The weights of the fully connected layer that leave with a channel."""
    return [8 * row + column - 10 for row in range(3) for column in range(4 * channel, 4 * channel + 4)]


def test_l1_and_l2_by_hand():
    module, groups = tiny()
    first, second = (torch.tensor(leaving(channel), dtype=torch.float32) for channel in (0, 1))
    by_l1, by_l2 = (method.score(module, groups)["0"] for method in (l1, l2))
    torch.testing.assert_close(by_l1, torch.stack([2.0 + first.abs().sum(), 1.0 + second.abs().sum()]))
    torch.testing.assert_close(by_l2, torch.stack([4.0 + first.square().sum(), 1.0 + second.square().sum()]).sqrt())


def test_fpgm_by_hand():
    module = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([5.0, -5.0, 0.5, 4.0]).reshape(4, 1, 1, 1))
    (scores,) = fpgm.score(module, find_groups(module, (1, 1, 1))).values()
    # The distances to the others; the one in the middle goes first although the smallest weight is another's.
    torch.testing.assert_close(scores, torch.tensor([10 + 4.5 + 1, 10 + 5.5 + 9, 4.5 + 5.5 + 3.5, 1 + 9 + 3.5]))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("method", "power"), [(l1, 1), (l2, 2)])
def test_scores_are_those_of_torch_pruning(name, method, power):
    module = network(name)
    reference = torch_pruning.importance.GroupMagnitudeImportance(
        p=power, group_reduction="sum", normalizer=None, target_types=[nn.Conv2d, nn.Linear]
    )
    graph = DependencyGraph().build_dependency(module, torch.zeros(1, *SHAPE), verbose=False)
    groups = find_groups(module, SHAPE)
    scores = method.score(module, groups)
    for root_name, group in groups.items():
        root = module.get_submodule(root_name)
        theirs = graph.get_pruning_group(
            root, graph.get_pruner_of_module(root).prune_out_channels, list(range(group.channels))
        )
        # torch-pruning leaves depthwise weights out of a group's importance
        depthwise = [member.layer for member in group.members if getattr(member.layer, "groups", 1) > 1]
        extra = sum((layer.weight.detach().abs().flatten(1).pow(power).sum(1) for layer in depthwise), torch.zeros(1))
        torch.testing.assert_close(scores[root_name].pow(power), reference(theirs) + extra)
