"""Removing channels by hand-made groups: which entries stay, in which tensors, and what puts them back."""

import pytest
import torch
from kondense.channels.groups import ChannelGroup, Member, OwnTensor
from kondense.channels.surgery import axis_length, keep_inputs_of, remove, restored, side_length
from torch import nn


def group(network: nn.Module, *sides: tuple[str, bool, int], width: int = 4) -> ChannelGroup:
    """Return a group of ``width`` channels with `entries` neighbours each, on sides (name, output, entries)."""
    named = dict(network.named_modules(remove_duplicate=False))
    members = [
        Member(name, named[name], output, torch.arange(width * entries).view(width, entries))
        for name, output, entries in sides
    ]
    return ChannelGroup(sides[0][0], tuple(members))


def numbered(network: nn.Module) -> nn.Module:
    """Give each entry of a tensor its own number."""
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.ndim:
            tensor.data = torch.arange(tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
    return network


def test_every_side_of_a_layer_keeps_the_entries_of_the_other_channels():
    network = numbered(
        nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.PReLU(4),
            nn.Conv2d(4, 8, 3, groups=4),  # depthwise, two outputs per input
            nn.Conv2d(8, 2, 1),
            nn.Flatten(),
            nn.Linear(2 * 9, 5),
        )
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sides = (("0", True, 1), ("1", True, 1), ("2", True, 1), ("3", True, 2), ("4", False, 2))
    kept = remove(network, {"0": group(network, *sides)}, {"0": torch.tensor([1, 2])})
    two, four = torch.tensor([0, 3]), torch.tensor([0, 1, 6, 7])
    assert {name: index.tolist() for name, index in kept.items()} == {
        **{name: two.tolist() for name in "012"},
        "3": four.tolist(),
    }
    after = network.state_dict()
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight"):
        assert torch.equal(after[name], before[name][two]), name
    for name in ("3.weight", "3.bias"):
        assert torch.equal(after[name], before[name][four]), name
    assert torch.equal(after["4.weight"], before["4.weight"][:, four])
    assert torch.equal(after["4.bias"], before["4.bias"]) and torch.equal(after["6.weight"], before["6.weight"])
    first, norm, slopes, depthwise, last = (network[k] for k in range(5))
    assert (first.in_channels, first.out_channels, norm.num_features, slopes.num_parameters) == (3, 2, 2, 2)
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels, last.in_channels) == (2, 2, 4, 4)
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    assert network(torch.ones(1, 3, 7, 7)).shape == (1, 5)


def test_a_linear_layer_loses_outputs_and_inputs_and_a_frozen_one_stays_frozen():
    network = numbered(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False)))
    network[1].weight.requires_grad_(False)
    kept = remove(network, {"0": group(network, ("0", True, 1), ("1", False, 1))}, {"0": torch.tensor([0])})
    assert kept["0"].tolist() == [1, 2, 3] and list(kept) == ["0"]
    assert network[0].weight.tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert network[1].weight.tolist() == [[1, 2, 3], [5, 6, 7]] and network[1].bias is None
    assert (network[0].out_features, network[1].in_features) == (3, 3)
    assert network[0].weight.requires_grad and not network[1].weight.requires_grad


def test_removing_nothing_changes_nothing():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    weight = network[0].weight
    groups = {"0": group(network, ("0", True, 1), ("1", False, 1))}
    assert remove(network, groups, {"0": torch.tensor([], dtype=torch.long)}) == {}
    assert network[0].weight is weight and remove(network, groups, {}) == {}


def test_a_module_is_found_by_each_of_its_names():
    network = nn.Module()
    network.first = nn.Linear(3, 4)
    network.second = network.first
    kept = remove(network, {"second": group(network, ("second", True, 1))}, {"second": torch.tensor([3])})
    assert kept["second"].tolist() == [0, 1, 2] and network.first.out_features == 3


def test_tied_parameters_stay_tied():
    network = nn.Module()
    network.encoder, network.decoder, network.third = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(3, 4)
    network.decoder.weight = network.third.weight = network.encoder.weight
    sides = [(name, True, 1) for name in ("encoder", "decoder", "third")]
    remove(network, {"encoder": group(network, *sides)}, {"encoder": torch.tensor([2])})
    assert network.encoder.weight.shape == (3, 3)
    assert network.decoder.weight is network.encoder.weight and network.third.weight is network.encoder.weight
    assert network.decoder.bias is not network.encoder.bias


def own(key: str, axis: int, length: int) -> Member:
    """Return a side that is an axis of a tensor in the module `part`, with one entry per channel."""
    place = OwnTensor("part", key, axis, length)
    return Member(place.name, place, True, torch.arange(length).view(length, 1))


@pytest.mark.parametrize("trained", [False, True])
def test_tensors_of_the_networks_own_lose_entries_and_stay_what_they_are(trained: bool) -> None:
    network = nn.Module()
    network.part = nn.Module()
    network.part.scale = nn.Parameter(torch.arange(4.0), requires_grad=trained)
    network.part.register_buffer("table", torch.arange(8.0).view(2, 4))
    sides = own("scale", 0, 4), own("table", 1, 4)
    assert [axis_length(network.part, side.layer) for side in sides] == [4, 4]
    assert remove(network, {"g": ChannelGroup("g", sides)}, {"g": torch.tensor([1])}) == {}
    assert isinstance(network.part.scale, nn.Parameter) and network.part.scale.requires_grad == trained
    assert dict(network.named_parameters())["part.scale"].tolist() == [0, 2, 3]
    assert not isinstance(network.part.table, nn.Parameter)
    assert dict(network.named_buffers())["part.table"].tolist() == [[0, 2, 3], [4, 6, 7]]


@pytest.mark.parametrize(("axis", "counts"), [(0, (2, 5)), (1, (3, 4))])
def test_an_embedding_counts_what_it_has(axis: int, counts: tuple[int, int]) -> None:
    network = nn.Module()
    network.part = nn.Embedding(3, 5)
    weight = network.part.weight.detach().clone()
    side = own("weight", axis, (3, 5)[axis])
    remove(network, {"g": ChannelGroup("g", (side,))}, {"g": torch.tensor([0])})
    assert (network.part.num_embeddings, network.part.embedding_dim) == tuple(network.part.weight.shape) == counts
    assert torch.equal(network.part.weight, weight.narrow(axis, 1, weight.shape[axis] - 1))


@pytest.mark.parametrize(("groups", "left"), [(4, 2), (2, 2), (1, 1)])
def test_a_group_norm_keeps_its_groups_unless_each_channel_is_one(groups: int, left: int) -> None:
    network = nn.Sequential(numbered(nn.GroupNorm(groups, 4)))
    remove(network, {"0": group(network, ("0", True, 1))}, {"0": torch.tensor([0, 2])})
    norm = network[0]
    assert (norm.num_groups, norm.num_channels, norm.weight.tolist(), norm.bias.tolist()) == (left, 2, [1, 3], [1, 3])
    assert norm(torch.ones(2, 2, 5)).shape == (2, 2, 5)


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.RMSNorm(4)])
def test_a_layer_norm_is_of_the_channels_that_are_left(norm: nn.Module) -> None:
    network = nn.Sequential(numbered(norm))
    remove(network, {"0": group(network, ("0", True, 1))}, {"0": torch.tensor([0, 2])})
    assert norm.normalized_shape == (2,) and side_length(norm, output=True) == 2
    assert norm.weight.tolist() == [1, 3] and norm(torch.ones(2, 2)).shape == (2, 2)


def test_what_a_layer_holds_beside_its_weight_follows_where_it_has_the_weights_sides() -> None:
    layer = numbered(nn.Linear(3, 4, bias=False))
    held = {  # in this order: what stays stands before what follows
        "count": torch.tensor(7),
        "row": torch.arange(3),
        "short": torch.arange(6).view(2, 3),
        "long": torch.arange(15).view(5, 3),
        "wide": torch.arange(16).view(4, 4),
        "mask": torch.arange(12).view(4, 3),
        "scales": torch.arange(3).view(1, 3),
        "absent": None,
    }
    for name, tensor in held.items():
        layer.register_buffer(name, tensor)
    keep_inputs_of(layer, torch.tensor([0, 2]))
    assert layer.in_features == 2 and layer.weight.tolist() == [[0, 2], [3, 5], [6, 8], [9, 11]]
    assert layer.mask.tolist() == [[0, 2], [3, 5], [6, 8], [9, 11]] and layer.scales.tolist() == [[0, 2]]
    for name in ("count", "row", "short", "long", "wide"):
        assert torch.equal(getattr(layer, name), held[name]), name
    assert layer.absent is None and not isinstance(layer.mask, nn.Parameter)


def test_of_outputs_only_tensors_with_an_entry_for_each_become_shorter() -> None:
    layer = numbered(nn.Linear(3, 4))
    held = {"count": torch.tensor(7), "short": torch.arange(2), "long": torch.arange(5), "mask": torch.arange(4)}
    for name, tensor in held.items():
        layer.register_buffer(name, tensor)
    network = nn.Sequential(layer)
    remove(network, {"0": group(network, ("0", True, 1))}, {"0": torch.tensor([1])})
    assert layer.mask.tolist() == [0, 2, 3] and not isinstance(layer.mask, nn.Parameter)
    for name in ("count", "short", "long"):
        assert torch.equal(getattr(layer, name), held[name]), name


def test_a_grouped_convolution_loses_as_many_inputs_of_each_group() -> None:
    layer = numbered(nn.Conv2d(6, 4, 1, groups=2, bias=False))
    before = layer.weight.detach().clone()
    keep_inputs_of(layer, torch.tensor([0, 2, 4, 5]))
    assert (layer.in_channels, layer.groups) == (4, 2)
    assert torch.equal(layer.weight[:2], before[:2][:, [0, 2]]) and torch.equal(layer.weight[2:], before[2:][:, [1, 2]])


@pytest.mark.parametrize("written", [False, True])
def test_what_a_block_did_to_a_network_is_undone(written):
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(3, 4))
    network[2].weight = network[0].weight
    network[2].weight.requires_grad_(False)
    network.register_buffer("shared", network[1].running_mean)
    network.register_buffer("none", None)
    tensors = [*network.parameters(), *network.buffers()]
    for name in ("widths", "of_", "a_b", "x"):  # what a layer holds itself; those of torch begin with an underscore
        setattr(network[0], name, [3, 4])
    places = {name: id(part) for name, part in network.named_modules()}
    values = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with restored(network, written=written):
        inside = [*network.parameters(), *network.buffers()]
        assert all((a is b) != written for a, b in zip(tensors, inside, strict=True))
        assert network[0].weight is network[2].weight and not network[0].weight.requires_grad
        assert network[2].bias.requires_grad and network[0].bias is None and network.none is None
        assert network.shared is network[1].running_mean
        assert {name: tensor.tolist() for name, tensor in network.state_dict().items()} == {
            name: tensor.tolist() for name, tensor in values.items()
        }
        if written:
            with torch.no_grad():
                for tensor in inside:
                    tensor.add_(1)
        network[0].in_features, network[0].extra = 99, "x"
        for name in ("widths", "of_", "a_b", "x"):
            getattr(network[0], name)[0] = 9
        network[1]._buffers["running_var"] = None
        network[2]._parameters["weight"] = nn.Parameter(torch.zeros(1))
        network.eval()
    assert all(a is b for a, b in zip(tensors, [*network.parameters(), *network.buffers()], strict=True))
    assert {name: id(part) for name, part in network.named_modules()} == places
    assert all(torch.equal(values[name], tensor) for name, tensor in network.state_dict().items())
    assert all(getattr(network[0], name) == [3, 4] for name in ("widths", "of_", "a_b", "x"))
    assert network[0].in_features == 3 and not hasattr(network[0], "extra") and network.training


def test_it_is_undone_after_an_error():
    network = nn.Sequential(nn.Linear(3, 4))
    weight = network[0].weight
    with pytest.raises(KeyError), restored(network):
        network[0].weight = nn.Parameter(torch.zeros(1))
        raise KeyError
    assert network[0].weight is weight


@pytest.mark.parametrize(
    ("layer", "outputs", "inputs"),
    [
        (nn.Conv2d(3, 5, 1), 5, 3),
        (nn.Linear(3, 5), 5, 3),
        (nn.PReLU(4), 4, 4),
        (nn.BatchNorm2d(6), 6, 6),
    ],
)
def test_the_sides_of_layers(layer, outputs, inputs):
    assert (side_length(layer, output=True), side_length(layer, output=False)) == (outputs, inputs)
