"""Numbers in the code of a network's own modules: read, lowered, described and applied."""

import copy

import pytest
import torch
from kondense.artifacts.literals import changed_literals, literals_of, set_literal
from kondense.artifacts.structure import apply_edits, find_edits
from kondense.errors import InputError
from kondense.networks.outputs import with_logits
from torch import nn


class Views(nn.Module):
    """Flattens by a number in its code, and splits by a tuple of others in another method."""

    def __init__(self, width=8):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, width, 1), nn.Linear(4 * width, 3)

    def halves(self, maps):
        return torch.split(maps, (4, 4), 1)

    def forward(self, images_NCHW, flat=True):
        maps = torch.cat(self.halves(self.conv(images_NCHW)), 1)
        return self.fc(maps.view(-1, 32)) if flat else maps


COUNT = 32


class Sizes:
    """Holds a constant as people hold them."""

    HALF = 4


def views_by_name():
    part = 4

    class ViewsByName(Views):
        """The same, with a constant of the file, one of a class and one of the function around."""

        def halves(self, maps):
            return torch.split(maps, (Sizes.HALF, part), 1)

        def forward(self, images_NCHW, flat=True):
            maps = torch.cat(self.halves(self.conv(images_NCHW)), 1)
            return self.fc(maps.view(-1, COUNT)) if flat else maps

    return ViewsByName()


class ViewsWithin(Views):
    """The same, with numbers in a comprehension, in a function within and as defaults."""

    def halves(self, maps):
        return [maps[:, start : start + 4] for start in (0, maps.shape[1] // 2)][:2]

    def flattened(self, maps, *, size=32):
        def flat(given, count=size):
            return given.view(-1, count)

        return flat(maps)

    def forward(self, images_NCHW):
        maps = self.conv(images_NCHW)
        return self.fc(self.flattened(torch.cat([part.relu() for part in maps.split(4, 1)], 1)))


IMAGES = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def narrow(net):
    """Give a network 6 of its 8 channels by hand."""
    net.conv.weight, net.conv.bias = (nn.Parameter(each[:6]) for each in (net.conv.weight, net.conv.bias))
    net.conv.out_channels, net.fc.in_features = 6, 24
    net.fc.weight = nn.Parameter(net.fc.weight[:, :24])
    set_literal(net, "halves", 4, 3)
    set_literal(net, "forward", 32, 24)
    return net


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("make", [Views, views_by_name])
def test_a_module_has_other_numbers_than_its_class(make, adapted):
    whole = make()
    small = narrow(with_logits(copy.deepcopy(whole)) if adapted else copy.deepcopy(whole))
    maps = whole.conv(IMAGES)[:, :6].flatten(1)
    torch.testing.assert_close(small(IMAGES), maps @ whole.fc.weight[:, :24].T + whole.fc.bias)
    assert changed_literals(small) == {"halves": {4: 3}, "forward": {32: 24}}
    assert whole(IMAGES).shape == make()(IMAGES).shape == (5, 3)
    assert literals_of(whole) == literals_of(Views()) == {"halves": {4: 4}, "forward": {32: 32}}


def test_numbers_can_be_lowered_again_and_put_back():
    net = Views()
    for value in (24, 16, 32):
        set_literal(net, "forward", 32, value)
        assert literals_of(net)["forward"] == {32: value}
    assert net(IMAGES).shape == (5, 3) and not changed_literals(net)


def test_a_copy_runs_its_own_weights_by_its_own_code():
    small = narrow(Views())
    again = copy.deepcopy(small)
    with torch.no_grad():
        again.fc.bias += 1
    torch.testing.assert_close(again(IMAGES), small(IMAGES) + 1)


@pytest.mark.parametrize("adapted", [False, True])
def test_edits_hold_the_numbers_by_method(adapted):
    adapt = with_logits if adapted else lambda net: net
    small = narrow(adapt(Views()))
    edits = find_edits(adapt(Views()), small)
    assert edits[""] == {"literals": {"halves": {"4": 3}, "forward": {"32": 24}}}
    again = adapt(Views())
    apply_edits(again, edits)
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(IMAGES), small(IMAGES))


@pytest.mark.parametrize(
    "literals",
    [
        {"forward": {"31": 3}},
        {"forward": {"32": 33}},
        {"forward": {"32": 32}},
        {"forward": {"32": 0}},
        {"forward": {"32": "3"}},
        {"forward": {"32": True}},
        {"forward": {"1": 0}},
        {"__init__": {"8": 4}},
        {"eval": {"2": 1}},
        {"forward": [32]},
        [],
    ],
)
def test_an_edit_can_only_lower_a_number_that_the_code_has(literals):
    net = Views()
    with pytest.raises(InputError, match="number"):
        apply_edits(net, {"": {"literals": literals}})
    assert not changed_literals(net)


def test_layers_of_torch_have_no_numbers():
    assert literals_of(nn.MultiheadAttention(8, 2)) == literals_of(nn.Conv2d(1, 1, 1)) == {}


def test_numbers_in_comprehensions_functions_within_and_defaults_are_lowered():
    net = ViewsWithin()
    assert literals_of(net) == {"halves": {4: 4, 2: 2}, "flattened": {32: 32}, "forward": {4: 4}}
    set_literal(net, "flattened", 32, 16)
    set_literal(net, "halves", 4, 3)
    maps = torch.randn(2, 8, 2, 2)
    assert net.flattened(maps).shape == (4, 16)
    assert [part.shape[1] for part in net.halves(maps)] == [3, 3]
    assert [part.shape[1] for part in ViewsWithin().halves(maps)] == [4, 4]
    assert literals_of(net) == {"halves": {4: 3, 2: 2}, "flattened": {32: 16}, "forward": {4: 4}}


def test_a_constant_that_two_methods_read_is_lowered_in_one_of_them():
    net = views_by_name()
    set_literal(net, "forward", 32, 24)
    assert (COUNT, Sizes.HALF) == (32, 4)
    assert literals_of(net) == {"halves": {4: 4}, "forward": {32: 24}}
    with pytest.raises(RuntimeError, match="shape"):
        net(IMAGES)


def test_a_function_that_the_user_gave_a_module_has_no_numbers():
    net = Views()
    net.halves = lambda maps: torch.split(maps, (4, 4), 1)
    assert literals_of(net) == {"forward": {32: 32}}
