import pytest
import torch
from kondense.errors import InputError
from kondense.networks.allowed import allowing
from kondense.networks.build import NetworkSpec, build, check_network, check_registered
from kondense.networks.build import check_images as check_module
from kondense.networks.lenet import scaled
from kondense.networks.names import BUILT_IN, check_form
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.support import factories

FACTORIES = "tests.support.factories"


def spec(name, *, channels=1, image_size=28, classes=10, **more):
    return NetworkSpec(name, {"classes": classes, "channels": channels, "image_size": image_size, **more})


def check_images(module, spec):
    channels, size, classes = (spec.arguments[key] for key in ("channels", "image_size", "classes"))
    check_module(f"network {spec.name!r}", module, (channels, size, size), classes)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "image_size", "parameters"),
    [
        ("lenet5", 1, 28, 431_080),  # Caffe
        ("lenet300", 1, 28, 266_610),  # Han et al. 2015, table 1: 267K
        ("lenet_cifar", 3, 32, 62_006),  # PyTorch's CIFAR-10 tutorial
        ("resnet8", 1, 28, 77_754),
        # He et al. 2015 have 269,722 and 853,018 with option A; option B adds two projections with their norms.
        ("resnet20", 3, 32, 269_722 + (16 * 32 + 32 * 64) + 2 * (32 + 64)),
        ("resnet56", 3, 32, 853_018 + (16 * 32 + 32 * 64) + 2 * (32 + 64)),
    ],
)
def test_published_networks_have_their_published_sizes(name, channels, image_size, parameters):
    assert count(build(spec(name, channels=channels, image_size=image_size))) == parameters


@pytest.mark.parametrize(("name", "macs"), [("lenet5", 2.29e6), ("resnet8", 2.55e6)])
def test_the_macs_are_those_of_the_baselines(name, macs):
    module = build(spec(name)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 1, 28, 28))
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=5e-3)


@pytest.mark.parametrize("width", [0.1, 0.25, 0.5, 0.75, 1.5, 2.0, 3.0])
def test_widths_are_multiples_of_eight_and_grow(width):
    counts = [scaled(channels, width) for channels in range(1, 513)]
    assert counts == sorted(counts)
    for channels, found in enumerate(counts, start=1):
        exact = channels * width
        assert found >= 1
        if exact >= 4:
            assert found % 8 == 0
            assert abs(found - exact) <= 4
        else:
            assert abs(found - exact) <= 0.5 or found == 1


def test_a_width_of_one_changes_nothing():
    assert [scaled(channels, 1.0) for channels in (3, 6, 20, 50, 500)] == [3, 6, 20, 50, 500]


@pytest.mark.parametrize("width", [0.25, 1.0, 2.0])
@pytest.mark.parametrize(("channels", "image_size"), [(1, 16), (1, 28), (3, 32)])
@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_networks_give_logits(name, channels, image_size, width):
    arguments = spec(name, channels=channels, image_size=image_size, classes=7, width=width)
    check_images(build(arguments), arguments)


@pytest.mark.parametrize("name", ["lenet5", "lenet_cifar"])
def test_images_that_are_too_small_are_an_error(name):
    with pytest.raises(ValueError, match=f"{name} needs images of at least 16 pixels, but got 8"):
        build(spec(name, image_size=8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v2", "densenet121", "efficientnet_b0", "vit_b_16"])
def test_torchvisions_networks_give_logits(name, channels):
    arguments = spec(f"torchvision:{name}", channels=channels, image_size=32)
    module = build(arguments)
    check_images(module, arguments)
    if channels == 3 and name != "vit_b_16":
        from torchvision import models

        reference = models.get_model(name, weights=None, num_classes=10)
        assert {k: v.shape for k, v in module.state_dict().items()} == {
            k: v.shape for k, v in reference.state_dict().items()
        }


def test_torchvisions_mobilenets_have_a_width():
    full, half = (count(build(spec("torchvision:mobilenet_v2", channels=3, width=width))) for width in (1.0, 0.5))
    assert half < full / 2
    with pytest.raises(ValueError, match=r"torchvision:resnet18 has no width; width must be 1.0, but got 0.5"):
        build(spec("torchvision:resnet18", width=0.5))


@pytest.mark.parametrize("argument", [{"weights": "DEFAULT"}, {"progress": False}, {"norm_layer": "x"}])
def test_torchvisions_networks_take_what_ours_take_and_download_nothing(argument):
    with pytest.raises(ValueError, match="network 'torchvision:resnet18' must take"):
        build(spec("torchvision:resnet18", channels=3, **argument))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = build(spec("lenet5"), seed=1), build(spec("lenet5"), seed=1), build(spec("lenet5"), seed=2)
    assert torch.rand(1) == expected
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "lenet6",
            "network must be one of lenet300, lenet5, .*resnet8, torchvision:NAME, timm:NAME or package.module:factory",
        ),
        ("", "but got ''"),
        ("mine/nets.py:make", r"but got a file: mine\.nets:make instead of mine/nets\.py:make\."),
        (f"{FACTORIES}:instance", "but is a network already: name a function that returns it"),
        ("torchvision:", "torchvision:NAME, timm:NAME or"),
        ("torchvision:resnet19", "must be one of 80, such as resnet18, resnet152, resnet101, but got 'resnet19'"),
        ("torchvision:fasterrcnn_resnet50_fpn", "must be one of 80, such as .*resnet50"),
        ("mine.net:make@IMAGENET1K_V1", "only networks of torchvision and timm have published weights"),
        ("no.such.module:factory", "must name an importable module and a factory in it"),
        (f"{FACTORIES}:absent", "must name an importable module and a factory in it"),
    ],
)
def test_an_unknown_name_lists_the_right_ones(name, text):
    with pytest.raises(ValueError, match=text) as caught:
        check_network(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Linear", "annotated"])
def test_factories_of_other_packages_are_built(name):
    arguments = spec(f"{FACTORIES}:{name}", image_size=8)
    module = build(arguments)
    assert isinstance(module, factories.Linear)
    check_images(module, arguments)


@pytest.mark.parametrize(
    "name", [f"{FACTORIES}:bare", f"{FACTORIES}:not_a_module", "os:system", "subprocess:run", "builtins:exec"]
)
def test_what_makes_no_modules_is_never_called(name):
    with pytest.raises(ValueError, match="must be a class of torch modules, or a function annotated to return one"):
        build(NetworkSpec(name, {"command": "true"}))
    assert not factories.CALLED


def test_wrong_arguments_are_an_error():
    with pytest.raises(ValueError, match=r"network 'lenet5' must take .*depth.*unexpected keyword argument"):
        build(spec("lenet5", depth=3))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (spec("torchvision:alexnet", channels=3, image_size=32), "must take images of 3x32x32, but"),
        (
            spec("torchvision:vit_b_16", channels=3, image_size=30),
            "must take .*image_size.*but: Input shape indivisible",
        ),
    ],
)
def test_images_that_do_not_fit_are_an_error(arguments, text):
    with pytest.raises(ValueError, match=text):
        check_images(build(arguments), arguments)


def test_a_network_that_takes_larger_images_says_from_which_size_on():
    arguments = spec("torchvision:alexnet", channels=3, image_size=32)
    with pytest.raises(ValueError, match="it takes sizes from 64 on"):
        check_module("network", build(arguments), (3, 32, 32), 10, arguments)


def test_a_network_for_one_size_says_which():
    arguments = spec(f"{FACTORIES}:for_images_of_24", image_size=28)
    with pytest.raises(ValueError, match=r"it takes images of 24x24 \(--set data_prep.image_size=24\)"):
        check_module("network", build(arguments), (1, 28, 28), 10, arguments)


@pytest.mark.parametrize("name", ["unannotated", "partial", "annotated_for_type_checkers"])
def test_what_takes_classes_is_a_factory(name):
    arguments = spec(f"{FACTORIES}:{name}", image_size=8)
    check_images(build(arguments), arguments)


@pytest.mark.parametrize("name", ["Renamed", "of_classes_only", "with_options"])
def test_parameters_may_have_the_names_that_people_give_them(name):
    arguments = spec(f"{FACTORIES}:{name}", image_size=8)
    module = build(arguments)
    assert isinstance(module, factories.Linear)
    check_images(module, arguments)


def test_a_function_of_nothing_is_a_factory_if_the_user_names_it():
    arguments = spec(f"{FACTORIES}:of_nothing", image_size=8)
    with allowing(modules=[FACTORIES]), pytest.raises(ValueError, match="must be a class of torch modules"):
        build(arguments)
    with allowing(networks=[arguments.name]):
        check_images(build(arguments), arguments)
        with pytest.raises(ValueError, match=r"\[2, 10\] for N = 2: its factory takes no number of classes"):
            check_module("network", build(arguments), (1, 8, 8), 3, arguments)


@pytest.mark.parametrize("name", ["parallel", "compiled", "half", "double"])
def test_what_a_network_is_wrapped_in_to_run_is_left_out(name):
    arguments = spec(f"{FACTORIES}:{name}", image_size=8)
    module = build(arguments)
    assert isinstance(module, factories.Linear)
    assert [weight.dtype for weight in module.parameters()] == [torch.float32] * 2
    check_images(module, arguments)


@pytest.mark.parametrize(("layers", "way"), [([nn.AdaptiveAvgPool2d(1)], r"flatten\(1\)"), ([], r"mean\(\(2, 3\)\)")])
def test_maps_of_logits_say_what_to_do(layers, way):
    module = nn.Sequential(nn.Conv2d(1, 3, 3), *layers)
    with pytest.raises(ValueError, match=rf"must return logits \[N, 3\], .* for N = 2: {way} makes one"):
        check_module("network", module, (1, 8, 8), 3)


def test_what_parts_of_a_network_are_wrapped_in_to_run_is_left_out():
    arguments = spec(f"{FACTORIES}:compiled_parts", image_size=8)
    with allowing(networks=[arguments.name]):
        module = build(arguments)
    assert [type(layer) for layer in module.layers] == [nn.Flatten, nn.Linear]
    assert not any(part._compiled_call_impl for part in module.modules())
    assert module.state_dict().keys() == {"layers.1.weight", "layers.1.bias"}


def test_one_output_for_two_classes_says_what_to_do():
    arguments = spec(f"{FACTORIES}:Linear", image_size=8, classes=1)
    with pytest.raises(ValueError, match=r"\[2, 1\] for N = 2: two classes need two outputs, without a sigmoid"):
        check_module("network", build(arguments), (1, 8, 8), 2, arguments)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("frozen", "must have a weight to train, but none of its 2 has requires_grad"),
        ("a_class", "must be a factory of torch modules, but gave the class Linear"),
        ("exits", "cannot be built with .*SystemExit: bye"),
        ("in_need", r"must take .*'image_size': 8.*missing 1 required positional argument: 'depth'"),
        ("broken", r"cannot be built with .*ZeroDivisionError: .* \(factories.py, line \d+\)"),
    ],
)
def test_factories_that_cannot_be_called_say_why(name, text):
    with pytest.raises(ValueError, match=text):
        build(spec(f"{FACTORIES}:{name}", image_size=8))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise SystemExit(0)", r"its import ends with SystemExit: 0 \(unimportable.py, line 1\)"),
        ("def make(:", "its import ends with SyntaxError: invalid syntax"),
        ("open('no-such-file')", "its import ends with FileNotFoundError: .*no-such-file"),
        ("import no_such_package", "must name an importable module and a factory in it: No module named"),
    ],
)
def test_modules_that_cannot_be_imported_say_why(tmp_path, monkeypatch, source, text):
    (tmp_path / "unimportable.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=text):
        build(spec("unimportable:make", image_size=8))


def test_lazy_layers_get_their_shapes():
    arguments = spec(f"{FACTORIES}:lazy", image_size=8)
    first, second = build(arguments), build(arguments)
    check_images(first, arguments)
    assert torch.equal(first[1].weight, second[1].weight)


def test_a_network_that_squeezes_the_batch_away_is_refused():
    with pytest.raises(ValueError, match=r"logits \[1, 10\] for one image, but returned \[10\]: squeeze"):
        check_images(build(spec(f"{FACTORIES}:Squeezed", image_size=8)), spec("x", image_size=8))


def test_weights_that_are_not_finite_are_named():
    module = build(spec("resnet8"))
    with torch.no_grad():
        module.fc.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"finite logits, but .* 1 of its tensors hold such values, .* fc.bias"):
        check_images(module, spec("resnet8"))


class OfUnitLength(nn.Module):
    """Divides by a length, which is zero for grey images."""

    def forward(self, images_NCHW):
        flat = images_NCHW.flatten(1)
        return (flat / flat.norm(dim=1, keepdim=True))[:, :10]


def test_a_network_may_divide_by_what_only_grey_images_lack():
    assert not torch.isfinite(OfUnitLength()(torch.zeros(2, 3, 32, 32))).any()
    check_images(OfUnitLength(), spec("resnet8"))


def test_logits_must_be_one_per_class():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    with pytest.raises(ValueError, match=r"must return logits \[N, 10\], one per class, but returned \[2, 9\]"):
        check_images(module, spec("lenet300", image_size=8))


def test_checking_images_keeps_the_mode():
    for training in (True, False):
        module = build(spec("resnet8")).train(training)
        check_images(module, spec("resnet8"))
        assert module.training is training
        assert int(module.bn1.num_batches_tracked) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_by_name():
    with pytest.raises(ValueError, match="must be made of Python modules, but 1 is TorchScript"):
        build(spec(f"{FACTORIES}:scripted", image_size=8))


@pytest.mark.parametrize(("name", "near"), [("resnet18", "did you mean resnet8, or "), ("vit_tiny_patch16_224", "")])
def test_a_name_without_its_library_gets_both_as_a_question(name, near):
    with pytest.raises(ValueError, match=rf"but got '{name}' \({near}torchvision:{name} or timm:{name}\?\)\.$"):
        check_form(name)
    with pytest.raises(ValueError, match=r"but got ''\.$"):
        check_form("")


class Described(nn.Module):
    """Takes its numbers under timm's names, and any others."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, **_: object) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_chans, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images).mean((2, 3))


class Derived(Described):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)


def described(pretrained: bool = False, **kwargs: object) -> Described:
    return Described(**kwargs)


def derived(**kwargs: object) -> Derived:
    return Derived(**kwargs)


def unnamed(**kwargs: object) -> nn.Module:
    return Described(**kwargs)


@pytest.mark.parametrize("factory", ["described", "derived", "Derived"])
def test_keyword_arguments_are_those_of_the_class_that_a_factory_returns(factory):
    spec = NetworkSpec(f"{__name__}:{factory}", {"classes": 7, "channels": 2, "image_size": 8})
    assert build(spec).layer.weight.shape == (7, 2, 1, 1)


def test_keyword_arguments_that_go_nowhere_are_told():
    spec = NetworkSpec(f"{__name__}:unnamed", {"classes": 7, "channels": 3, "image_size": 8})
    with pytest.raises(
        ValueError, match=r"its \*\*kwargs got classes, channels and image_size; name one of its parameters"
    ):
        check_module("the network", build(spec), (3, 8, 8), 7, spec)


class Hides(nn.Module):
    """Holds weights where torch does not find them, in the attribute ``held``."""

    def __init__(self, held):
        super().__init__()
        self.fc = nn.Linear(64, 10)
        self.inner = nn.Sequential(nn.Identity())
        self.inner[0].held = held

    def forward(self, images_NCHW):
        return self.fc(images_NCHW.flatten(1))


@pytest.mark.parametrize(
    ("held", "way"),
    [
        ([nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)], r"4 tensors in 'inner.0.held', a list.*nn.ModuleList"),
        ({"low": (nn.Linear(2, 2),)}, r"2 tensors in 'inner.0.held', a dict.*nn.ModuleDict"),
        ([nn.Parameter(torch.ones(2))], r"1 tensors in 'inner.0.held', a list"),
        (torch.ones(2, requires_grad=True), r"1 tensors in 'inner.0.held', a Tensor.*nn.Parameter"),
    ],
)
def test_weights_that_torch_does_not_find_are_refused_with_their_place(held, way):
    with pytest.raises(InputError, match=way) as refused:
        check_registered("mine:make", Hides(held))
    assert "neither trained nor saved" in str(refused.value) and "\n" not in str(refused.value)


def test_what_torch_finds_and_what_must_stay_may_stand_in_lists():
    net = Hides([nn.ReLU(), nn.Linear(2, 2).requires_grad_(False), torch.ones(3), "text"])
    net.known = [net.fc, {"first": net.fc.weight}]
    net.rows = nn.LSTM(2, 2)
    check_registered("mine:make", net)
