import copy

import pytest
import torch
import torch_pruning
from kondense.artifacts.structure import apply_edits, find_edits
from kondense.errors import InputError
from kondense.networks.build import NetworkSpec, build
from kondense.networks.names import BUILT_IN
from torch import nn


def spec(name):
    return NetworkSpec(name, {"classes": 10, "channels": 1, "image_size": 28})


def pruned(name, ratio=0.5):
    """Remove channels by torch-pruning, which changes every layer that depends on them."""
    module = build(spec(name))
    head = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    torch_pruning.MagnitudePruner(
        module,
        torch.zeros(1, 1, 28, 28),
        torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=ratio,
        ignored_layers=[head],
    ).step()
    return module


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_edits_give_a_pruned_networks_very_shapes(name):
    changed = pruned(name)
    edits = find_edits(build(spec(name)), changed)
    assert edits
    base = build(spec(name))
    apply_edits(base, edits)
    base.load_state_dict(changed.state_dict(), strict=True)
    images = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(base.eval()(images), changed.eval()(images))


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_an_unchanged_network_has_no_edits(name):
    assert find_edits(build(spec(name)), build(spec(name), seed=1)) == {}


def test_a_folded_norm_is_an_identity_and_a_bias():
    changed = build(spec("resnet8"))
    changed.bn1 = nn.Identity()
    changed.conv1.bias = nn.Parameter(torch.ones(16))
    edits = find_edits(build(spec("resnet8")), changed)
    assert edits == {"conv1": {"bias": True}, "bn1": {"type": "Identity"}}
    base = build(spec("resnet8"))
    apply_edits(base, edits)
    base.load_state_dict(changed.state_dict(), strict=True)


def test_a_bias_can_go():
    changed = build(spec("lenet5"))
    changed.fc1.bias = None
    edits = find_edits(build(spec("lenet5")), changed)
    assert edits == {"fc1": {"bias": False}}
    base = build(spec("lenet5"))
    apply_edits(base, edits)
    base.load_state_dict(changed.state_dict(), strict=True)


def _replaced(name, module):
    def change(network):
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, module)

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_replaced("extra", nn.Linear(2, 2)), "module 'extra' is not part of the base network; only shapes may change"),
        (_replaced("relu", nn.GELU()), "module 'relu' is a GELU, but the base has ReLU"),
        (_replaced("bn1", nn.GroupNorm(4, 16)), "module 'bn1' is a GroupNorm, but the base has BatchNorm2d"),
        (_replaced("conv1", nn.Conv2d(1, 16, 5, 2, 2, bias=False)), r"tensor 'conv1.weight' has shape \[16, 1, 5, 5\]"),
        (
            _replaced("conv1", nn.Conv2d(1, 16, 3, 1, 1, bias=False)),
            "module 'conv1' has the settings .*stride=\\(1, 1\\)",
        ),
        (_replaced("bn1", nn.BatchNorm2d(16, eps=0.1)), "module 'bn1' has the settings '16, eps=0.1"),
        (_replaced("pool", nn.AdaptiveAvgPool2d(2)), "module 'pool' has the settings"),
        (lambda network: delattr(network, "fc"), "tensor 'fc.bias' of the base network is missing"),
    ],
)
def test_what_no_edit_can_say_is_an_error(change, text):
    changed = build(spec("resnet8"))
    change(changed)
    with pytest.raises(ValueError, match=text):
        find_edits(build(spec("resnet8")), changed)


def made(code="x"):
    """A network of a class that is defined anew at each call, with other code if ``code`` says so."""

    class Block(nn.Linear):
        if code == "x":

            def forward(self, x):
                return super().forward(x)

        else:

            def forward(self, x):
                return 2 * super().forward(x)

    return nn.Sequential(Block(4, 3)).eval()


def test_a_class_that_a_factory_defines_at_each_call_is_the_same_if_its_code_is():
    assert find_edits(made(), made()) == {}
    with pytest.raises(InputError, match="module '0' is a Block, but the base has Block"):
        find_edits(made(), made(code="2x"))


def test_what_only_training_uses_may_differ():
    changed = build(spec("resnet8"))
    changed.bn1.momentum = None
    changed.relu.inplace = True
    assert find_edits(build(spec("resnet8")), changed) == {}


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        ({"conv9": {"out_channels": 3}}, "a structural edit names module 'conv9', which the network does not have"),
        ({"conv1": {"kernel_size": 3}}, "a structural edit of 'conv1' must set .*but got kernel_size=3"),
        ({"conv1": {"__class__": 3}}, "must set .*but got __class__=3"),
        ({"conv1": {"type": "Tanh"}}, "must set .*but got type='Tanh'"),
        ({"conv1": {"bias": 3}}, "must set .*but got bias=3"),
        ({"conv1": {"out_channels": True}}, "must set .*but got out_channels=True"),
        ({"relu": {"bias": True}}, "a structural edit of 'relu' cannot change a ReLU"),
        ({"blocks": {"bias": True}}, "cannot change a Sequential"),
    ],
)
def test_a_wrong_edit_is_an_error(edits, text):
    module = build(spec("resnet8"))
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ValueError, match=text):
        apply_edits(module, edits)
    assert before.keys() == module.state_dict().keys()


class OwnNorm(nn.BatchNorm2d):
    """A class of a library's own."""


class Gained(nn.Conv2d):
    """A convolution with a tensor of its own, which may be one that is not saved."""

    def __init__(self, *sizes, persistent=True):
        super().__init__(*sizes)
        self.register_buffer("gain", torch.ones(sizes[1]), persistent=persistent)


def test_classes_that_add_no_tensor_are_edited_as_the_layers_that_they_extend():
    edits = find_edits(nn.Sequential(nn.Conv2d(1, 8, 3), OwnNorm(8)), nn.Sequential(nn.Conv2d(1, 6, 3), OwnNorm(6)))
    assert edits == {"0": {"out_channels": 6}, "1": {"num_features": 6}}
    base = nn.Sequential(nn.Conv2d(1, 8, 3), OwnNorm(8))
    apply_edits(base, edits)
    assert (type(base[1]), base[1].running_mean.shape) == (OwnNorm, (6,))
    with pytest.raises(InputError, match="cannot change a Gained"):
        apply_edits(nn.Sequential(Gained(1, 8, 3, persistent=False)), {"0": {"out_channels": 6}})


def test_convolutions_with_saved_tensors_of_their_own_are_edited_with_those():
    edits = find_edits(nn.Sequential(Gained(1, 8, 3)), nn.Sequential(Gained(1, 6, 3)))
    assert edits == {"0": {"out_channels": 6, "tensors": {"gain": [6]}}}
    base = nn.Sequential(Gained(1, 8, 3))
    apply_edits(base, edits)
    assert (base[0].gain.shape, base[0].weight.shape[0]) == ((6,), 6)
    with pytest.raises(InputError, match="must give the shape of a tensor"):
        apply_edits(nn.Sequential(Gained(1, 8, 3)), {"0": {"out_channels": 6, "tensors": {"gain": [600]}}})


class Scaled(nn.Module):
    """A module with tensors and a number of its own."""

    def __init__(self, width):
        super().__init__()
        self.width, self.passes = width, 0
        self.gamma = nn.Parameter(torch.ones(1, width))
        self.register_buffer("shift", torch.zeros(width))
        self.norm, self.rows, self.table = nn.LayerNorm(width), nn.LSTM(width, width, 2), nn.Embedding(5, width)


def test_own_tensors_numbers_norms_and_recurrent_layers_are_edited():
    changed = Scaled(6)
    changed.passes = 3  # grows while the network runs
    edits = find_edits(Scaled(8), changed)
    assert edits == {
        "": {"tensors": {"gamma": [1, 6], "shift": [6]}, "numbers": {"width": 6}},
        "norm": {"normalized_shape": [6]},
        "rows": {"input_size": 6, "hidden_size": 6},
        "table": {"embedding_dim": 6},
    }
    base = Scaled(8)
    apply_edits(base, edits)
    assert base.width == 6
    assert {name: tensor.shape for name, tensor in base.state_dict().items()} == {
        name: tensor.shape for name, tensor in changed.state_dict().items()
    }
    base.load_state_dict(changed.state_dict())
    rows = torch.randn(3, 2, 6)
    torch.testing.assert_close(base.rows(rows)[0], changed.rows(rows)[0])
    torch.testing.assert_close(base.norm(rows), changed.norm(rows))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        ({"tensors": {"gamma": [1, 9]}}, "must give the shape of a tensor, but got gamma"),  # more than the network has
        ({"tensors": {"beta": [1, 6]}}, "must give the shape of a tensor, but got beta"),
        ({"tensors": {"gamma": [6]}}, "must give the shape of a tensor, but got gamma"),
        ({"numbers": {"width": 0}}, "must set a number, but got width=0"),
        ({"numbers": {"forward": 3}}, "must set a number, but got forward=3"),
        ({"numbers": {"width": 10**12}}, "must lower width=8, but got 1000000000000"),
    ],
)
def test_an_edit_of_what_a_module_does_not_hold_is_an_error(edit, text):
    with pytest.raises(InputError, match=text):
        apply_edits(Scaled(8), {"": edit})


class Slimmable(nn.Conv2d):
    """Computes with a part of its weight, and sets its own numbers in every forward, as slimmable networks do."""

    def forward(self, images_NCHW):
        self.out_channels = 3
        return nn.functional.conv2d(images_NCHW, self.weight[:3], self.bias[:3])


def test_numbers_that_a_forward_sets_are_no_edit():
    base, changed = nn.Sequential(Slimmable(2, 4, 1)), nn.Sequential(Slimmable(2, 4, 1))
    changed(torch.zeros(1, 2, 5, 5))
    assert find_edits(base, changed) == {}
    assert changed[0].out_channels == 3
