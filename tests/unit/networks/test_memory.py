"""Networks given in memory: the code that builds them is named, or the refusal says what to do."""

import pytest
import torch
import torchvision
from kondense.artifacts.model import Model
from kondense.errors import InputError
from kondense.networks.build import NetworkSpec, build
from kondense.networks.held import is_held
from kondense.networks.memory import difference_of, importable_name, network_spec_of
from torch import nn

from tests.support import factories
from tests.support.distribution import run_python

ARGUMENTS = {"classes": 10, "channels": 1, "image_size": 8}


class Plain(nn.Module):
    """A network whose class takes no argument that must be given."""

    def __init__(self, hidden: int = 8, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, hidden, 3, stride), nn.Linear(hidden, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).amax((2, 3)))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16", "squeezenet1_1"])
def test_torchvisions_networks_are_recognised(name: str) -> None:
    module = torchvision.models.get_model(name, weights=None, num_classes=7)
    spec = network_spec_of(module)
    assert spec.name == f"torchvision:{name}"
    build(spec).load_state_dict(module.state_dict())


def test_a_torchvision_network_with_another_head_is_recognised_and_one_with_another_body_is_not() -> None:
    module = torchvision.models.resnet18(weights=None)
    module.fc = nn.Linear(512, 3)
    assert network_spec_of(module) == NetworkSpec("torchvision:resnet18", {"classes": 3, "channels": 3})
    module.layer1 = nn.Identity()
    with pytest.raises(InputError, match="ResNet.*network='package.module:ResNet'"):
        network_spec_of(module, arguments={"layers": [2, 2, 2, 2]})
    assert is_held(network_spec_of(module).name)


def test_a_class_without_required_arguments_is_named() -> None:
    assert network_spec_of(Plain()) == NetworkSpec(f"{__name__}:Plain", {})
    spec = network_spec_of(Plain(16), arguments={"hidden": 16})
    assert spec.arguments == {"hidden": 16}


@pytest.mark.parametrize("network", [factories.Linear, factories.annotated, f"{factories.__name__}:annotated"])
def test_a_factory_may_be_given_as_a_name_or_an_object(network: object) -> None:
    spec = network_spec_of(factories.Linear(**ARGUMENTS), network, ARGUMENTS)
    assert spec.name.startswith(factories.__name__)
    assert difference_of(build(spec), factories.Linear(**ARGUMENTS)) == ""


@pytest.mark.parametrize(
    ("module", "options", "text"),
    [
        (
            Plain(16),
            {"arguments": {"hidden": 4}},
            r"Plain\(\) builds another .*: conv is Conv2d\(1, 16.* but Conv2d\(1, 4",
        ),
        (Plain(stride=2), {"network": f"{__name__}:Plain"}, "builds another architecture: conv is"),
        (Plain(16), {"network": Plain}, "builds another architecture: conv is"),
        (
            factories.Linear(**ARGUMENTS),
            {"arguments": {"classes": 10}},
            r"Linear cannot be built again: .*missing 2 required.*arguments=\{...\}",
        ),
        (nn.Linear(3, 3), {"arguments": {"bias": True}}, "no code is known that builds this Linear; put the code"),
        (
            Plain(),
            {"network": lambda: Plain(8)},
            "is a lambda, so that it cannot be built again elsewhere; put the code",
        ),
        (Plain(), {"network": f"{__name__}:absent"}, "must name an importable module and a factory in it"),
    ],
)
def test_what_cannot_be_built_again_is_refused_with_the_way_out(module: nn.Module, options: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        network_spec_of(module, **options)


def test_a_class_in_a_function_or_in_a_script_is_refused() -> None:
    class Local(Plain):
        pass

    with pytest.raises(InputError, match="network Local is defined inside another function or class"):
        network_spec_of(Local(), arguments={"hidden": 8})
    lines = run_python(
        """
        from torch import nn
        from kondense.errors import InputError
        from kondense.networks.memory import network_spec_of

        class Net(nn.Module):
            pass

        for options in ({"arguments": {"depth": 2}}, {"network": Net}):
            try:
                network_spec_of(Net(), **options)
            except InputError as error:
                print(error)
        """
    )
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("network Net is defined in __main__, a notebook or script, so that it cannot be built")
        assert "put the code that builds it into an importable module" in line


def test_a_name_is_what_another_process_imports() -> None:
    assert importable_name(factories.annotated) == f"{factories.__name__}:annotated"
    copy = type("Plain", (Plain,), {"__module__": __name__})
    with pytest.raises(InputError, match=f"is not what {__name__}:Plain imports"):
        importable_name(copy)


def test_a_model_in_memory_gives_its_logits_alone_and_the_users_network_all():
    arguments = {"classes": 3, "channels": 1, "image_size": 4}
    network = factories.of_two_heads(**arguments).eval()
    model = Model(network, "tests.support.factories:of_two_heads#1", arguments=arguments)
    images = torch.ones(2, 1, 4, 4)
    assert isinstance(network(images), tuple)
    assert torch.equal(model.module(images), network(images)[1])
    assert model.module.layers is network.layers
