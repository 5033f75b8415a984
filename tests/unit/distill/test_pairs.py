import pytest
import torch
from kondense.distill.feature_hooks import list_layers, record_outputs
from kondense.distill.layer_pairs import named_pairs, pair_by_maps, pair_last
from kondense.networks.build import NetworkSpec, build
from torch import nn

SHAPE = (1, 28, 28)


def network(name, **arguments):
    return build(NetworkSpec(name, {"classes": 10, "channels": 1, "image_size": 28} | arguments))


def names(pairs):
    return [(pair.teacher.name, pair.student.name) for pair in pairs]


def test_layers_are_listed_in_the_order_in_which_they_end_without_the_output():
    layers = list_layers(network("lenet5"), SHAPE)
    assert list(layers) == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten", "fc1", "relu3"]
    assert layers["pool1"].shape == (20, 12, 12)
    assert layers["relu3"].shape == (500,)
    assert [layer.depth for layer in layers.values()] == pytest.approx([(1 + i) / 9 for i in range(9)])
    assert [name for name, layer in layers.items() if layer.is_map] == list(layers)[:6]


def test_what_runs_twice_or_before_anything_was_learnt_is_left_out():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.flatten, self.relu = nn.Flatten(), nn.ReLU()
            self.first, self.second, self.last = nn.Linear(784, 6), nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, images):
            return self.last(self.relu(self.second(self.relu(self.first(self.flatten(images))))))

    module = Twice()
    assert list(list_layers(module, SHAPE)) == ["first", "second"]
    assert module.training
    assert not any(layer._forward_hooks for layer in module.modules())


def test_automatic_pairs_have_equal_sizes():
    pairs = pair_by_maps(network("resnet8"), network("resnet8", width=0.5), SHAPE, "")
    assert names(pairs) == [
        (name, name) for name in ("blocks.0", "blocks.1", "blocks")
    ]  # blocks gives what blocks.2 gives
    assert [pair.teacher.shape for pair in pairs] == [(16, 14, 14), (32, 7, 7), (64, 4, 4)]
    assert [pair.student.shape for pair in pairs] == [(8, 14, 14), (16, 7, 7), (32, 4, 4)]


def test_automatic_pairs_of_unlike_networks_are_nearest_in_depth():
    # resnet8's maps are 14, 7 and 4 pixels wide, lenet5's 24, 12, 8 and 4.
    pairs = pair_by_maps(network("resnet8"), network("lenet5"), SHAPE, "")
    assert [(pair.student.name, pair.student.shape[1]) for pair in pairs] == [
        ("relu1", 24), ("pool1", 12), ("relu2", 8), ("pool2", 4)
    ]  # fmt: skip
    assert pairs[-1].teacher.name == "blocks"
    layers = list_layers(network("resnet8"), SHAPE)
    choices = [layers[name] for name in ("blocks.0", "blocks.1", "blocks")]
    for pair in pairs[:-1]:
        gaps = {layer.name: abs(layer.depth - pair.student.depth) for layer in choices}
        assert gaps[pair.teacher.name] == min(gaps.values())


def test_networks_without_maps_are_paired_by_features():
    pairs = pair_by_maps(network("lenet300"), network("lenet300", width=0.5), SHAPE, "")
    assert names(pairs) == [("relu1", "relu1"), ("relu2", "relu2")]


def test_the_last_layers_feed_the_classifiers():
    assert names(pair_last(network("resnet8"), network("lenet5"), SHAPE, "")) == [("flatten", "relu3")]
    torchvision = network("torchvision:resnet18")
    assert names(pair_last(torchvision, network("lenet300"), SHAPE, "")) == [("avgpool", "relu2")]


def test_layers_can_be_named():
    pairs = pair_by_maps(network("resnet8"), network("lenet5"), SHAPE, " blocks.0.bn1 : conv1 , blocks.1:relu2")
    assert names(pairs) == [("blocks.0.bn1", "conv1"), ("blocks.1", "relu2")]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("blocks.7:conv1", r"layers of the teacher, which are conv1, bn1, relu, .*flatten; but got 'blocks.7'"),
        ("blocks.1:conv9", r"layers of the student, which are conv1, relu1, .*relu3; but got 'conv9'"),
        ("fc:conv1", "layers of the teacher, .* but got 'fc'"),  # the output itself
        ("blocks.1:fc1", r"'blocks.1' is \[32, 7, 7\] and 'fc1' is \[500\]"),
    ],
)
def test_wrong_names_are_refused_with_the_right_ones(text, rule):
    teacher, student = (list_layers(network(name), SHAPE) for name in ("resnet8", "lenet5"))
    with pytest.raises(ValueError, match=rule):
        named_pairs(teacher, student, text)


def test_a_network_without_inner_layers_is_refused():
    class Flat(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(784, 10))

    for pair in (pair_by_maps, pair_last):
        with pytest.raises(ValueError, match="the teacher must have inner layers to compare, but it has none"):
            pair(Flat(), network("lenet300"), SHAPE, "")


def test_watching_keeps_the_latest_outputs_of_one_mode_and_ends():
    module = network("lenet5")
    with record_outputs(module, ["conv2", "relu3"], training=True) as outputs:
        module.eval()(torch.zeros(2, *SHAPE))
        assert outputs == {}
        module.train()(torch.ones(3, *SHAPE))
        assert {name: list(output.shape) for name, output in outputs.items()} == {
            "conv2": [3, 50, 8, 8],
            "relu3": [3, 500],
        }
    assert not any(layer._forward_hooks for layer in module.modules())
