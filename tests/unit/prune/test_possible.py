import pytest
import torch
from kondense.errors import InputError
from kondense.measuring.size import count_macs
from kondense.networks.layers import matching
from kondense.prune import channels
from kondense.prune.config import PruneConfig
from kondense.prune.masks import magnitude, masks
from kondense.prune.possible import reduction, zeroing
from kondense.prune.scores import l1
from torch import nn

from tests.support.prune_context import make_context
from tests.support.toy_training import toy_dataset

CHANNELS = 32


def by_channel(maps_NCHW):
    return maps_NCHW.view(-1, CHANNELS, *maps_NCHW.shape[2:])


class Fixed(nn.Module):
    """Half of its layers have a number of channels that stands in a function outside of the network."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3), nn.Linear(32, 3)

    def forward(self, images_NCHW):
        maps = self.second(self.first(images_NCHW))
        return self.fc(by_channel(maps).mean((2, 3)))


def test_the_most_that_is_possible_is_what_the_step_reaches_and_the_limit_is_named():
    torch.manual_seed(0)
    dataset, module = toy_dataset(), Fixed().eval()
    possible = reduction(module, dataset.shape, PruneConfig(round_to=8))
    assert set(possible.limits) == set(possible.whole) == {"second"}
    assert "number of channels written in its code" in str(possible)
    before = sum(count_macs(module, dataset.shape).values())
    below = int(possible.fraction * 10_000) / 10_000
    request = make_context(PruneConfig(sparsity=below, round_to=8, reconstruct=False), dataset)
    channels.prepare(module, request, l1.score).step(1.0)
    assert 1.0 - sum(count_macs(module, dataset.shape).values()) / before == pytest.approx(possible.fraction)
    above = make_context(PruneConfig(sparsity=below + 0.01, round_to=8), dataset)
    with pytest.raises(InputError, match="must be at most 0.* of the macs .*; limited by second: without some"):
        channels.prepare(Fixed().eval(), above, l1.score)


def test_layers_that_stay_are_in_the_details_and_cannot_be_asked_for():
    dataset = toy_dataset()
    pruner = channels.prepare(Fixed().eval(), make_context(PruneConfig(sparsity=0.1), dataset), l1.score)
    assert set(pruner.details()["whole"]) == {"second"}
    with pytest.raises(InputError, match="layers must name layers that can lose channels, but 'second' cannot"):
        channels.prepare(Fixed().eval(), make_context(PruneConfig(layers="second=0.5"), dataset), l1.score)


def test_of_many_layers_the_nearest_names_are_listed():
    module = nn.Sequential(*[nn.Linear(2, 2) for _ in range(30)])
    with pytest.raises(InputError, match=r"got '2x'; the types are Conv2d, Linear, the nearest of 30 layers 2, "):
        matching(module, "exclude", ["2x"])


@pytest.mark.parametrize("granularity", ["weights", "kernels", "neurons"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_most_that_can_be_zeroed_is_what_the_method_takes(granularity, scope):
    torch.manual_seed(0)
    module, settings = Fixed().eval(), {"method": "magnitude", "granularity": granularity, "scope": scope}
    most = zeroing(module, PruneConfig(**settings))
    for sparsity in (most - 1e-6, most + 1e-2):
        request = make_context(PruneConfig(**settings, sparsity=min(sparsity, 0.99999)), toy_dataset())
        if sparsity < most:
            kept = masks.prepare(module, request, magnitude.score).step(1.0)
            assert all(bool(mask.any()) for mask in kept.values())
        else:
            with pytest.raises(InputError, match="keeps? one of"):
                masks.prepare(module, request, magnitude.score)
