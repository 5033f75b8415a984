"""Networks that each hold one construct: its channels go, or stay with a reason."""

import copy

import pytest
import torch
import torch.nn.functional as F
from kondense.channels.dependencies import find_dependencies, find_groups
from kondense.channels.surgery import remove
from torch import nn

from tests.unit.channels.test_dependencies import SHAPE, zeroed_equals_removed


def network(forward, **layers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, images_NCHW):
            return forward(self, images_NCHW)

    torch.manual_seed(0)
    return Net().eval()


def pooled(maps_NCHW):
    return maps_NCHW.mean((2, 3))


def chunked(net, images):
    first, second = net.conv(images).chunk(2, 1)
    return net.fc(pooled(first * F.silu(second)))


def shuffled(net, images):
    maps = net.conv(images)
    count, channels, height, width = maps.shape
    mixed = maps.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(maps.shape)
    return net.fc(pooled(net.two(mixed)))


def doubled(net, images):
    maps = net.conv(images)
    return net.fc(pooled(torch.cat([maps, maps.relu()], 1)))


def gated(net, images):
    features = pooled(net.conv(images))
    return net.fc(net.down(F.silu(net.gate(features)) * net.up(features)))


def recurred(net, images):
    """Two convolutional LSTMs over the rows of a map, whose states begin with zeros."""
    frames = list(images.split(2, 2))
    for cell, hidden in ((net.low, "low_size"), (net.high, "high_size")):
        state = [torch.zeros(len(images), getattr(net, hidden), 2, 8) for _ in range(2)]
        for place, frame in enumerate(frames):
            gates = torch.split(cell(torch.cat([frame, state[0]], 1)), getattr(net, hidden), 1)
            state[1] = gates[0].sigmoid() * state[1] + gates[1].sigmoid() * gates[2].tanh()
            frames[place] = state[0] = gates[3].sigmoid() * state[1].tanh()
    return net.fc(pooled(frames[-1]))


def stepped(net, images):
    """An LSTM cell whose gates are slices of a linear layer's outputs; its first state is no channel of the images."""
    hidden, cell = torch.zeros(2, len(images), net.size)
    for row in images[:, 0].unbind(1):
        gates = net.reads(row) + net.repeats(hidden)
        kept, new, shown = (gates[:, part * net.size : (part + 1) * net.size] for part in range(3))
        cell = kept.sigmoid() * cell + new.sigmoid() * gates[:, 3 * net.size :].tanh()
        hidden = shown.sigmoid() * cell.tanh()
    return net.fc(hidden)


def times(net, images):
    maps = net.conv(images).view(-1, net.multiple * net.width, 36).softmax(2)
    return net.fc(pooled(maps.reshape(-1, net.multiple * net.width, 6, 6)))


def of_three_kinds(net, images):
    gates, values, other = net.conv(images).split([net.width, net.width, 4], 1)
    return net.fc(pooled(gates.sigmoid() * values)) + net.last(pooled(other))


def as_many(net, images):
    """The outputs of ``own`` must be as many as those of ``conv``, which nothing but a shape says."""
    maps = net.conv(images)
    return net.fc(pooled(maps + net.mix(net.own(maps).reshape(maps.shape))))


def headed(net, images):
    """Attention whose heads are as wide as the width of the tokens says."""
    tokens = net.embed(images).flatten(2).transpose(1, 2)
    count, length, width = tokens.shape
    query, key, value = (
        layer(tokens).reshape(count, length, net.num_heads, width // net.num_heads).transpose(1, 2)
        for layer in (net.query, net.key, net.value)
    )
    mixed = (query @ key.transpose(2, 3)).softmax(3) @ value
    return net.fc((tokens + net.project(mixed.transpose(1, 2).reshape(count, length, width))).mean(1))


def spread_out(net, images):
    """Every channel of ``rows`` meets every one of ``columns``."""
    rows, columns = pooled(net.rows(images)), pooled(net.columns(images))
    return net.fc(torch.einsum("nr,nc->nrc", rows, columns).mean(1))


def driven(net, images):
    """A product with fewer channels on the other side of the sum, which stay; a table of the network's own beside."""
    maps = net.conv(images).flatten(2).transpose(1, 2)
    values, places = net.values(maps), net.places(maps)
    state = torch.einsum("nlc,nlp->ncp", values, places.softmax(1)) * net.table
    return net.fc(torch.einsum("ncp,nlp->nlc", state, places).mean(1))


def by_name(net, images):
    maps = F.conv2d(input=images, weight=net.conv.weight, bias=net.conv.bias)
    return net.fc(F.linear(input=pooled(maps), weight=net.linear.weight, bias=net.offset).relu())


def conv(outputs=16, inputs=1, **settings):
    return nn.Conv2d(inputs, outputs, 3, **settings)


NARROWED = {  # construct: network, channels and blocks by group
    "glu": (
        network(lambda net, x: net.fc(pooled(F.glu(net.conv(x), 1))), conv=conv(), fc=nn.Linear(8, 4)),
        {"conv": (8, 1)},
    ),
    "chunk and multiply": (network(chunked, conv=conv(), fc=nn.Linear(8, 4)), {"conv": (8, 1)}),
    "swiglu": (
        network(
            gated, conv=conv(), gate=nn.Linear(16, 32), up=nn.Linear(16, 32), down=nn.Linear(32, 8), fc=nn.Linear(8, 4)
        ),
        {"conv": (16, 1), "gate": (32, 1), "down": (8, 1)},
    ),
    "pixel shuffle": (
        network(
            lambda net, x: net.fc(pooled(net.two(F.pixel_shuffle(net.conv(x), 2)))),
            **{"conv": conv(), "two": conv(8, 4), "fc": nn.Linear(8, 4)},
        ),
        {"conv": (4, 1), "two": (8, 1)},
    ),
    "pixel unshuffle": (
        network(
            lambda net, x: net.fc(pooled(net.two(F.pixel_unshuffle(net.conv(x), 2)))),
            **{"conv": conv(4), "two": conv(8, 16), "fc": nn.Linear(8, 4)},
        ),
        {"conv": (4, 1), "two": (8, 1)},
    ),
    "unfold": (
        network(
            lambda net, x: net.fc(net.mix(F.unfold(net.conv(x), 3).transpose(1, 2)).mean(1)),
            **{"conv": conv(4), "mix": nn.Linear(36, 8), "fc": nn.Linear(8, 4)},
        ),
        {"conv": (4, 1), "mix": (8, 1)},
    ),
    "channel shuffle": (
        network(shuffled, conv=conv(), two=conv(8, 16), fc=nn.Linear(8, 4)),
        {"conv": (8, 1), "two": (8, 1)},
    ),
    "concatenated with itself": (network(doubled, conv=conv(), fc=nn.Linear(32, 4)), {"conv": (16, 1)}),
    "interpolation": (
        network(
            lambda net, x: net.fc(pooled(F.interpolate(net.conv(x), scale_factor=2.0, mode="bilinear"))),
            **{"conv": conv(), "fc": nn.Linear(16, 4)},
        ),
        {"conv": (16, 1)},
    ),
    "depthwise with a multiplier": (
        network(
            lambda net, x: net.fc(pooled(net.deep(net.conv(x)).relu())),
            **{"conv": conv(), "deep": conv(32, 16, groups=16), "fc": nn.Linear(32, 4)},
        ),
        {"conv": (16, 1)},
    ),
    "linear layer over positions": (
        network(
            lambda net, x: net.fc(net.norm(net.mix(net.conv(x).flatten(2))).mean(2)),
            **{"conv": conv(4), "mix": nn.Linear(36, 6), "norm": nn.BatchNorm1d(4), "fc": nn.Linear(4, 4)},
        ),
        {"conv": (4, 1)},
    ),
    "einsum": (
        network(
            lambda net, x: net.fc(torch.einsum("nchw,nc->nc", net.conv(x), net.gate(pooled(net.conv(x))))),
            **{"conv": conv(), "gate": nn.Linear(16, 16), "fc": nn.Linear(16, 4)},
        ),
        {"conv": (16, 1)},
    ),
}

NARROWED |= {
    "maxout": (
        network(
            lambda net, x: net.fc(pooled(net.conv(x).unflatten(1, (-1, 2)).amax(2))), conv=conv(), fc=nn.Linear(8, 4)
        ),
        {"conv": (8, 1)},
    ),
    "largest of the halves": (
        network(
            lambda net, x: net.fc(pooled(net.conv(x).unflatten(1, (2, -1)).max(1).values)),
            **{"conv": conv(), "fc": nn.Linear(8, 4)},
        ),
        {"conv": (8, 1)},
    ),
    "patches that are added up again": (
        network(
            lambda net, x: net.fc(pooled(F.fold(F.unfold(net.conv(x), 2, stride=2).relu(), (6, 6), 2, stride=2))),
            **{"conv": conv(), "fc": nn.Linear(16, 4)},
        ),
        {"conv": (16, 1)},
    ),
    "slope for each channel": (
        network(
            lambda net, x: net.fc(pooled(net.slope(net.conv(x)))), conv=conv(), slope=nn.PReLU(16), fc=nn.Linear(16, 4)
        ),
        {"conv": (16, 1)},
    ),
    "instance norm": (
        network(
            lambda net, x: net.fc(pooled(net.norm(net.conv(x)).relu())),
            **{"conv": conv(), "norm": nn.InstanceNorm2d(16, affine=True), "fc": nn.Linear(16, 4)},
        ),
        {"conv": (16, 1)},
    ),
}


def residual_parts(net, images):
    first, second, third, last = net.conv(images).chunk(4, 1)
    second = net.one(second)
    third = net.two(second + third)
    return net.fc(pooled(torch.cat([first, second, third, last], 1)))


def cross_stage(net, images):
    parts = list(net.conv(images).chunk(2, 1))
    parts.append(parts[-1] + net.one(parts[-1]))
    return net.fc(pooled(torch.cat(parts, 1)))


def written_in_place(net, images):
    maps = net.conv(images)
    moved = torch.zeros_like(maps)
    moved[:, :4, :, :-1] = maps[:, :4, :, 1:]
    moved[:, 4:] = maps[:, 4:]
    moved[:, :, 0] += 1.0
    return net.fc(pooled(net.two(moved)))


NARROWED |= {
    "parts that go different ways": (
        network(residual_parts, conv=conv(), one=conv(4, 4, padding=1), two=conv(4, 4, padding=1), fc=nn.Linear(16, 4)),
        {"conv": (4, 1), "two": (4, 1)},
    ),
    "a part that is kept and worked on": (
        network(cross_stage, conv=conv(), one=conv(8, 8, padding=1), fc=nn.Linear(24, 4)),
        {"conv": (8, 1)},
    ),
    "one dimension": (
        network(
            lambda net, x: net.fc(net.two(net.norm(net.one(x.flatten(2))).relu()).mean(2)),
            **{"one": nn.Conv1d(1, 16, 3), "norm": nn.BatchNorm1d(16), "two": nn.Conv1d(16, 8, 3, groups=2)},
            **{"fc": nn.Linear(8, 4)},
        ),
        {"one": (16, 2), "two": (8, 2)},
    ),
    "three dimensions": (
        network(
            lambda net, x: net.fc(net.two(net.norm(net.one(x.unsqueeze(1))).relu()).mean((2, 3, 4))),
            **{"one": nn.Conv3d(1, 16, (1, 3, 3)), "norm": nn.BatchNorm3d(16), "two": nn.Conv3d(16, 8, (1, 3, 3))},
            **{"fc": nn.Linear(8, 4)},
        ),
        {"one": (16, 1), "two": (8, 1)},
    ),
    "as many places as channels are left": (  # samples of both are of one shape
        network(
            lambda net, x: net.fc(net.mix(net.conv(F.pad(x, (5, 5, 5, 5))).flatten(2)).mean(2)),
            **{"conv": conv(), "mix": nn.Linear(256, 16), "fc": nn.Linear(16, 4)},
        ),
        {"conv": (16, 1)},
    ),
}


def parameter(*shape):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(5)))


def radix(net, images):
    """Two halves of a grouped convolution, weighed by a softmax over both (ResNeSt)."""
    halves = net.conv(net.before(images)).chunk(2, 1)
    gates = net.gate(pooled(sum(halves))).unflatten(1, (2, -1)).softmax(1)
    return net.fc(pooled(sum(half * gate[..., None, None] for half, gate in zip(halves, gates.unbind(1), strict=True))))


def gathered(net, images):
    tokens_NTC = net.conv(images).flatten(2).transpose(1, 2)
    best_NK = net.score(images.flatten(2).transpose(1, 2)[:, :36]).squeeze(-1).topk(5, 1).indices
    return net.fc(torch.gather(tokens_NTC, 1, best_NK.unsqueeze(-1).expand(-1, -1, tokens_NTC.size(2))).sum(1))


def filtered(net, images):
    """Multiplies the spectrum of every map by numbers of its own (GFNet)."""
    spectrum = torch.fft.rfft2(net.conv(images), dim=(2, 3)) * torch.view_as_complex(net.filters)
    return net.fc(pooled(torch.fft.irfft2(spectrum, s=(6, 6), dim=(2, 3))))


def resized(net, images):
    """Scales by a learnt table of positions that is taken apart, resized and put together again."""
    first, grid = net.table[:, :1], net.table[:, 1:].reshape(1, 3, 3, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (6, 6), mode="bicubic").permute(0, 2, 3, 1).view(1, 36, -1)
    tokens = net.conv(images).flatten(2).transpose(1, 2)
    return net.fc((torch.cat([tokens.mean(1, keepdim=True), tokens], 1) * torch.cat([first, grid], 1)).mean(1))


NARROWED |= {
    "halves of a grouped convolution": (
        network(radix, before=conv(4), conv=conv(32, 4, groups=2), gate=nn.Linear(16, 32), fc=nn.Linear(16, 4)),
        {"before": (4, 2), "conv": (16, 1)},
    ),
    "a difference of the network's own tensors": (
        network(
            lambda net, x: net.fc(pooled(net.conv(x) * (net.one - net.two) * net.one.sigmoid())),
            **{"conv": conv(), "one": parameter(1, 16, 1, 1), "two": parameter(1, 16, 1, 1), "fc": nn.Linear(16, 4)},
        ),
        {"conv": (16, 1)},
    ),
    "tokens that are gathered": (
        network(gathered, conv=conv(), score=nn.Linear(1, 1), fc=nn.Linear(16, 4)),
        {"conv": (16, 1)},
    ),
    "spectra": (
        network(filtered, conv=conv(), filters=parameter(16, 6, 4, 2), fc=nn.Linear(16, 4)),
        {"conv": (16, 1)},
    ),
    "as many as others": (
        network(as_many, conv=conv(), own=conv(16, 16, padding=1), mix=conv(16, 16, padding=1), fc=nn.Linear(16, 4)),
        {"conv": (16, 1)},
    ),
    "heads as wide as the tokens say": (
        network(
            headed,
            **{name: nn.Linear(16, 16) for name in ("query", "key", "value", "project")},
            **{"num_heads": 4, "embed": conv(16), "fc": nn.Linear(16, 4)},
        ),
        {"query": (4, 1)},
    ),
    "functions called by name": (
        network(by_name, conv=conv(), linear=nn.Linear(16, 12, bias=False), offset=parameter(12), fc=nn.Linear(12, 4)),
        {"conv": (16, 1), "linear": (12, 1)},
    ),
    "every one with every other": (
        network(spread_out, rows=conv(4), columns=conv(), fc=nn.Linear(16, 4)),
        {"columns": (16, 1)},
    ),
    "a state of channels and places": (
        network(
            driven,
            **{"conv": conv(), "values": nn.Linear(16, 24), "places": nn.Linear(16, 3)},
            **{"table": parameter(24, 3), "fc": nn.Linear(24, 4)},
        ),
        {"conv": (16, 1), "values": (24, 1)},
    ),
    "states that begin with zeros": (
        network(
            recurred,
            **{"low_size": 12, "high_size": 12, "fc": nn.Linear(12, 4)},
            **{"low": conv(48, 1 + 12, padding=1), "high": conv(48, 12 + 12, padding=1)},
        ),
        {"low": (12, 1), "high": (12, 1)},
    ),
    "a state that a layer reads": (
        network(stepped, size=10, reads=nn.Linear(8, 40), repeats=nn.Linear(10, 40), fc=nn.Linear(10, 4)),
        {"reads": (10, 1)},
    ),
    "a product of numbers": (
        network(times, multiple=3, width=8, conv=conv(24), fc=nn.Linear(24, 4)),
        {"conv": (8, 1)},
    ),
    "outputs of several kinds": (
        network(of_three_kinds, width=8, conv=conv(20), fc=nn.Linear(8, 4), last=nn.Linear(4, 4)),
        {"conv": (8, 1)},
    ),
    "a table that is resized": (
        network(resized, conv=conv(), table=parameter(1, 10, 16), fc=nn.Linear(16, 4)),
        {"conv": (16, 1)},
    ),
}

WRITTEN = network(written_in_place, conv=conv(), two=conv(8, 16), fc=nn.Linear(8, 4))


def test_what_is_written_to_a_part_of_a_map_is_followed():
    groups = find_groups(WRITTEN, SHAPE)
    assert sum(group.channels for group in groups.values()) == 8  # the shift stands at a number of channels
    zeroed_equals_removed(WRITTEN, groups)


def multiplied(net, features_NC):
    return net.fc(features_NC @ net.matrix + (features_NC @ net.other.T).relu())


def thinly(net, features_NC):
    return F.linear(features_NC, net.thin @ net.wide)


@pytest.mark.parametrize("head", [multiplied, thinly])
def test_products_with_matrices_of_the_networks_own_lose_the_channels(head):
    matrices = {"matrix": parameter(16, 6), "other": parameter(6, 16), "fc": nn.Linear(6, 4)}
    matrices = matrices if head is multiplied else {"thin": parameter(4, 3), "wide": parameter(3, 16)}
    module = network(lambda net, x: head(net, pooled(net.conv(x))), conv=conv(), **matrices)
    groups, images = find_groups(module, SHAPE), torch.randn(3, *SHAPE)
    wanted = head(module, pooled(module.conv(images)) * (torch.arange(16) % 3 > 0))
    remove(module, groups, {"conv": torch.arange(0, 16, 3)})
    torch.testing.assert_close(module(images), wanted)
    assert {parameter.shape for parameter in module.parameters()} >= {(10, 1, 3, 3)}


@pytest.mark.parametrize("name", NARROWED)
def test_narrowed(name):
    module, expected = NARROWED[name]
    groups = find_groups(module, SHAPE)
    assert {key: (group.channels, group.blocks) for key, group in groups.items()} == expected
    zeroed_equals_removed(module, groups)


WHOLE = {  # construct: network, what the reason says
    "split at a number": (
        network(lambda net, x: net.fc(pooled(torch.mul(*net.conv(x).split(8, 1)))), conv=conv(), fc=nn.Linear(8, 4)),
        "no longer runs",
    ),
    "view with a number": (
        network(lambda net, x: net.fc(pooled(net.conv(x).view(-1, 16, 6, 6))), conv=conv(), fc=nn.Linear(16, 4)),
        "number of channels written in its code",
    ),
    "expand to a number": (
        network(lambda net, x: net.fc(pooled(net.conv(x).expand(-1, 16, 6, 6))), conv=conv(), fc=nn.Linear(16, 4)),
        "no longer runs",
    ),
    "constant of a fixed size": (
        network(
            lambda net, x: net.fc(pooled(net.conv(x) + torch.arange(16)[:, None, None])),
            **{"conv": conv(), "fc": nn.Linear(16, 4)},
        ),
        "a tensor of a fixed size",
    ),
    "ones as many as the channels": (
        network(lambda net, x: net.fc(pooled(net.conv(x) + torch.ones(16, 1, 1))), conv=conv(), fc=nn.Linear(16, 4)),
        "no longer runs",
    ),
    "layer norm": (
        network(lambda net, x: net.fc(pooled(F.layer_norm(net.conv(x), (16, 6, 6)))), conv=conv(), fc=nn.Linear(16, 4)),
        "a layer norm",
    ),
    "place of the largest channel": (
        network(lambda net, x: net.fc(net.conv(x).argmax(1).flatten(1).float()), conv=conv(), fc=nn.Linear(36, 4)),
        "argmax",
    ),
    "bilinear pooling": (
        network(
            lambda net, x: net.fc(torch.einsum("ncl,ndl->ncd", *[net.conv(x).flatten(2)] * 2).flatten(1)),
            **{"conv": conv(), "fc": nn.Linear(256, 4)},
        ),
        "meets several others",
    ),
    "divided by the number of channels": (
        network(lambda net, x: net.fc(pooled(net.conv(x)) / net.conv(x).shape[1]), conv=conv(), fc=nn.Linear(16, 4)),
        "the outputs change",
    ),
    "rolled and added": (
        network(lambda net, x: net.fc(pooled(net.conv(x) + net.conv(x).roll(1, 1))), conv=conv(), fc=nn.Linear(16, 4)),
        "depend on each other",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole(name):
    module, reason = WHOLE[name]
    found = find_dependencies(module, SHAPE)
    assert not found.groups
    assert reason in found.whole["conv"]
    assert "the network's" in found.whole["fc"]


def test_tied_weights_stay_tied():
    module = network(
        lambda net, x: net.fc(pooled(net.second(net.first(net.conv(x)).relu()))),
        **{"conv": conv(8), "first": conv(8, 8), "second": conv(8, 8), "fc": nn.Linear(8, 4)},
    )
    module.second.weight = module.first.weight
    small = zeroed_equals_removed(module, find_groups(module, SHAPE))
    assert small.first.weight is small.second.weight
    assert small.first.weight.shape == (4, 4, 3, 3)


def test_a_transformer_loses_hidden_features_and_keeps_its_attention():
    module = network(
        lambda net, x: net.fc(net.encoder(net.conv(x).flatten(2).transpose(1, 2)).mean(1)),
        **{"conv": conv(16), "encoder": nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)},
        fc=nn.Linear(16, 4),
    )
    groups = find_groups(module, SHAPE)
    assert set(groups) == {"encoder.linear1"}
    zeroed_equals_removed(module, groups)


def test_heads_that_only_training_runs_shrink_too():
    def forward(net, images):
        maps = net.conv(images)
        return (net.fc(pooled(maps)), net.aux(pooled(maps))) if net.training else net.fc(pooled(maps))

    module = network(forward, conv=conv(), aux=nn.Linear(16, 4), fc=nn.Linear(16, 4))
    groups = find_groups(module, SHAPE)
    small = copy.deepcopy(module)
    remove(small, groups, {"conv": torch.arange(6)})
    assert [tuple(each.shape) for each in small.train()(torch.randn(2, *SHAPE))] == [(2, 4), (2, 4)]
    assert not module.training


def half_shuffled(net, images):
    """Channels of two layers change places; hardly anything of them reaches the outputs."""
    maps = torch.cat([net.conv(images), net.other(images)], 1)
    mixed = maps.unflatten(1, (2, maps.shape[1] // 2)).transpose(1, 2).flatten(1, 2)
    return net.fc(1e-7 * pooled(net.two(mixed))) + pooled(images)


def test_what_goes_wrong_inside_is_seen_though_the_outputs_hardly_change():
    module = network(
        half_shuffled, conv=nn.Conv2d(1, 12, 3), other=nn.Conv2d(1, 12, 3), two=nn.Conv2d(24, 8, 3), fc=nn.Linear(8, 4)
    )
    groups = find_groups(module, SHAPE)
    assert set(groups) == {"two"}
    before, small = copy.deepcopy(module), copy.deepcopy(module)
    wrong = find_dependencies(module, SHAPE, proved=False).groups["conv"]
    remove(small, {"conv": wrong}, {"conv": torch.arange(4)})
    images = torch.randn(2, *SHAPE)
    assert torch.allclose(small(images), before(images), atol=1e-5)  # the wrong removal is hidden
    zeroed_equals_removed(module, groups)


def test_the_proof_leaves_the_network_as_it_is():
    module = network(
        lambda net, x: net.fc(pooled(net.norm(net.conv(x)) * net.scale)),
        **{"conv": conv(), "norm": nn.BatchNorm2d(16), "fc": nn.Linear(16, 4)},
    )
    module.scale = nn.Parameter(torch.zeros(1))  # near zero: the proof puts another in its place
    before = {name: (id(tensor), tensor.clone()) for name, tensor in module.state_dict(keep_vars=True).items()}
    assert set(find_groups(module, SHAPE)) == {"conv"}
    after = module.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(id(after[name]) == number for name, (number, _) in before.items())
    assert all(torch.equal(after[name], value) for name, (_, value) in before.items())
    assert (module.conv.out_channels, module.norm.num_features, module.fc.in_features) == (16, 16, 16)
    assert not any(layer._forward_hooks for layer in module.modules())


class Cached(nn.Module):
    """Keeps a scale of its channels in evaluation, as LeViT keeps its biases: ``train`` drops it."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.logs = conv(), nn.Linear(16, 4), nn.Parameter(torch.randn(16, 1, 1))
        self.kept, self.seen = {}, []

    def train(self, mode=True):
        if mode:
            self.kept = {}
        return super().train(mode)

    def scale(self):
        if self.training:
            return self.logs.exp()
        if "scale" not in self.kept:
            self.kept["scale"] = self.logs.exp()
        return self.kept["scale"]

    def forward(self, images):
        maps = self.conv(images) * self.scale()
        self.seen.append(maps)
        return self.fc(pooled(maps))


def test_what_a_network_keeps_in_evaluation_follows_and_none_of_the_passes_stays_in_it():
    torch.manual_seed(0)
    module, images = Cached().eval(), torch.randn(3, *SHAPE)
    module(images)
    kept, seen = module.kept["scale"], list(module.seen)
    groups = find_groups(module, SHAPE)
    assert {name: group.channels for name, group in groups.items()} == {"conv": 16}
    assert module.kept["scale"] is kept and len(module.seen) == len(seen) and module.seen[0] is seen[0]
    wanted = module.fc(pooled(module.conv(images) * module.scale() * (torch.arange(16) > 4)[:, None, None]))
    remove(module, groups, {"conv": torch.arange(5)})
    torch.testing.assert_close(module(images), wanted)
    assert not module.training and module.logs.shape == (11, 1, 1)


class FunctionalNorm(nn.Module):
    """A batch norm by function, whose tensors the network holds itself; an auxiliary head that only training runs."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.aux = conv(), nn.Linear(16, 4), nn.Linear(16, 4)
        self.held = nn.ParameterDict({"scale": torch.randn(16), "shift": torch.randn(16)})
        self.register_buffer("mean", torch.randn(16))
        self.register_buffer("variance", torch.rand(16) + 0.5)
        self.modes = []

    def forward(self, images_NCHW):
        self.modes.append(self.training)
        tensors = (self.mean, self.variance, self.held["scale"], self.held["shift"])
        maps = F.batch_norm(self.conv(images_NCHW), *tensors, self.training, 0.1, 1e-5).relu()
        return (self.fc(pooled(maps)), self.aux(pooled(maps))) if self.training else self.fc(pooled(maps))


def test_tensors_of_a_norm_by_function_go_with_its_channels():
    torch.manual_seed(0)
    module, images = FunctionalNorm().eval(), torch.randn(3, *SHAPE)
    mean, variance = module.mean.clone(), module.variance.clone()
    groups = find_groups(module, SHAPE)
    assert {name: group.channels for name, group in groups.items()} == {"conv": 16}
    assert torch.equal(module.mean, mean) and torch.equal(module.variance, variance)  # not those of the passes
    kept = torch.arange(5, 16)
    maps = F.conv2d(images, module.conv.weight[kept], module.conv.bias[kept], padding=module.conv.padding)
    scale, shift = (module.held[key][kept, None, None] for key in ("scale", "shift"))
    maps = (maps - mean[kept, None, None]) / (variance[kept, None, None] + 1e-5).sqrt() * scale + shift
    wanted = F.linear(pooled(maps.relu()), module.fc.weight[:, kept], module.fc.bias)
    remove(module, groups, {"conv": torch.arange(5)})
    torch.testing.assert_close(module(images), wanted)
    assert {tuple(tensor.shape) for tensor in (module.mean, module.variance, *module.held.values())} == {(11,)}


def test_a_network_that_asks_whether_it_trains_is_proved_by_one_pass_in_training():
    def forward(net, images):
        passes.append(net.training)
        return net.fc(F.dropout(pooled(net.conv(images)), 0.5, net.training))

    passes = []
    module = network(forward, conv=conv(), fc=nn.Linear(16, 4))
    module.__class__.asks = lambda self: self.training
    assert set(find_groups(module, SHAPE)) == {"conv"}
    assert sum(passes) == 1


def retrieved(net, images):
    """Retrieves from stored patterns twice, which takes products of its own tensors only (Hopfield)."""
    state = net.norm(net.query(pooled(net.conv(images))))
    state = torch.softmax(state @ net.keys.t(), -1) @ net.keys
    found = torch.softmax(state @ net.keys.t(), -1) @ net.values
    return net.fc(pooled(net.conv(images)) + found)


def test_channels_that_meet_what_own_tensors_make_go_with_these():
    module = network(retrieved, conv=conv(), query=nn.Linear(16, 12), norm=nn.LayerNorm(12), fc=nn.Linear(16, 4))
    module.keys, module.values = nn.Parameter(torch.randn(6, 12)), nn.Parameter(torch.randn(6, 16))
    images = torch.randn(3, *SHAPE)
    groups = find_groups(module, SHAPE)
    assert {name: group.channels for name, group in groups.items()} == {"conv": 16, "query": 12}
    kept, hidden = torch.arange(4, 16), torch.arange(3, 12)
    features = pooled(F.conv2d(images, module.conv.weight[kept], module.conv.bias[kept], padding=module.conv.padding))
    keys = module.keys[:, hidden]
    state = F.linear(features, module.query.weight[hidden][:, kept], module.query.bias[hidden])
    state = F.layer_norm(state, (9,), module.norm.weight[hidden], module.norm.bias[hidden])
    state = torch.softmax(state @ keys.t(), -1) @ keys
    found = torch.softmax(state @ keys.t(), -1) @ module.values[:, kept]
    wanted = F.linear(features + found, module.fc.weight[:, kept], module.fc.bias)
    remove(module, groups, {"conv": torch.arange(4), "query": torch.arange(3)})
    torch.testing.assert_close(module(images), wanted)
    assert module.keys.shape == (6, 9) and module.values.shape == (6, 12)
