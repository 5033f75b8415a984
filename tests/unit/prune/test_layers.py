import pytest
from kondense.networks.build import NetworkSpec, build
from kondense.networks.layers import matching, parse_names
from kondense.prune.context import resolve_fractions
from kondense.prune.fractions import parse_fractions


def network(name):
    return build(NetworkSpec(name, {"classes": 3, "channels": 1, "image_size": 16}))


def test_a_name_outweighs_a_type_and_a_layer_the_module_that_holds_it():
    fractions = parse_fractions(" Conv2d=0.8, Linear=0.95,fc2=0.5 ")
    assert resolve_fractions(network("lenet5"), fractions) == {"conv1": 0.8, "conv2": 0.8, "fc1": 0.95, "fc2": 0.5}
    found = resolve_fractions(network("resnet8"), parse_fractions("blocks.1.conv2=0.1,blocks=0.2,Conv2d=0.3"))
    assert found["conv1"] == 0.3
    assert found["blocks.1.conv1"] == 0.2
    assert found["blocks.1.conv2"] == 0.1
    assert "fc" not in found


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Conv2d", "layers must be entries name=fraction with a fraction in .0, 1., but got 'Conv2d'"),
        ("Conv2d=1.0", "but got 'Conv2d=1.0'"),
        ("Conv2d=-0.1", "but got 'Conv2d=-0.1'"),
        ("Conv2d=nan", "but got 'Conv2d=nan'"),
        ("Conv2d=half", "but got 'Conv2d=half'"),
        ("=0.5", "but got '=0.5'"),
        ("fc1=0.5,fc1=0.6", "layers must name each type or module once, but got 'fc1' twice"),
    ],
)
def test_bad_texts_are_refused(text, rule):
    with pytest.raises(ValueError, match=rule):
        parse_fractions(text)


@pytest.mark.parametrize("name", ["fc9", "ReLU", "relu1", "conv", "BatchNorm2d"])
def test_a_name_that_means_no_layer_lists_the_right_ones(name):
    with pytest.raises(ValueError, match=rf"got '{name}'; the types are Conv2d, Linear, the layers conv1, conv2, fc1"):
        matching(network("lenet5"), "exclude", [name])


def test_names():
    assert parse_names(" conv1, blocks.0 ,") == ("conv1", "blocks.0")
    assert parse_names("") == ()
